"""The interface of a format of exported files. Imports no torch: commands answer at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..checkpoints.writing import replacing, require_writable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata
    from .quantizer import Quantizer

PRECISIONS = ('fp32', 'fp16', 'bf16')
# Name of the entry of a file that holds its metadata, as JSON.
ENTRY = 'mmrepvgg'


class MissingPackageError(ModuleNotFoundError):
    """A package that a format needs is not installed. The message says how to install it."""


class NoRuntimeError(RuntimeError):
    """The runtime of a format does not run on this machine, whatever is installed."""


def require_packages(what: str, packages: Iterable[str], extra: str) -> None:
    """Check that packages are installed, without importing them.

    Args:
        what: What needs the packages, for the message.
        packages: Names of the packages, as they are imported.
        extra: Name of the extra of this project that installs them.

    Raises:
        MissingPackageError: If one is not installed.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingPackageError(
            f'{what} need {", ".join(missing)}, not installed here: pip install "mmrepvgg[{extra}]"'
        )


class Format(ABC):
    """One kind of file.

    A new format is a subclass in a module of its own, and an object of it in ``table.FORMATS``. The export, the test,
    the prediction and the benchmark ask this object.

    Attributes:
        name: Name of the format in messages.
        suffixes: Endings of the files.
        precisions: Precisions that the weights can have.
        options: Arguments of the export that the format knows, out of ``'opset'``, ``'dynamic_batch'``,
            ``'dynamic_size'``, ``'with_preprocess'`` and ``'softmax'``.
        any_size: Whether all files take images of any height and width.
        packages: Packages that run a file, by the names that are imported.
        writing_packages: Further packages that write a file.
        extra: Name of the extra of this project that installs the packages.
        writing_extra: Name of the extra that installs all packages, if it is another one.
        runtime: Name of the runtime in the benchmark; empty if the benchmark does not time it.
        runtime_title: Name of the runtime for people.
        computes: Floating-point precisions in which the runtime computes on CPUs, whatever a file holds.
        quantizers: Quantizers that make int8 files of this format, the default first; empty if there is none.
        marker: What a file of this format has at this place in it, if it is a folder; empty if it is not.
        checks: What the export checks where the runtime does not run (:meth:`find_obstacle`).
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    options: ClassVar[frozenset[str]] = frozenset()
    any_size: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    writing_packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ''
    writing_extra: ClassVar[str] = ''
    runtime: ClassVar[str] = ''
    runtime_title: ClassVar[str] = ''
    computes: ClassVar[tuple[str, ...]] = PRECISIONS
    quantizers: ClassVar[tuple['Quantizer', ...]] = ()
    marker: ClassVar[str] = ''
    checks: ClassVar[str] = ''

    @abstractmethod
    def write(
        self,
        model: 'nn.Module',
        path: Path,
        metadata: 'ExportMetadata',
        *,
        model_cfg: Any = None,
        opset: int | None = None,
    ) -> None:
        """Write a model as ``metadata`` describes it.

        Args:
            model: Network from normalised images ``(N, C, H, W)`` to logits ``(N, classes)``. Its weights may be
                changed to the precision.
            path: File to write.
            metadata: Description of the file, which is stored in it.
            model_cfg: Config from which the model was built.
            opset: Version of the ONNX operators.

        Raises:
            ExportError: If the format can't hold this model.
        """

    @abstractmethod
    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        """Read a file that :meth:`write` wrote.

        Raises:
            CheckpointError: If it is damaged.
            ValueError: If it has no metadata.
        """

    def find_obstacle(self) -> str:
        """Why the runtime does not run on this machine, whatever is installed; empty if it does."""
        return ''

    def load_to_check(self, path: Path) -> 'ExportedModel':
        """Read a file that was just written, for its comparison with the checkpoint.

        A format whose runtime does not run on this machine computes what is in the file by other means.
        """
        return self.load(path, None)

    def load_layers(self, path: Path) -> 'Callable[[Tensor], dict[str, Tensor]] | None':
        """Read a file so that it shows what its layers give.

        Returns:
            A function from images that the file takes to the outputs of its convolutions and linear layers, by their
            names in the classifier; None if files of this format do not show them.

        Raises:
            MissingPackageError: If a package that this needs is not installed.
            CheckpointError, ValueError: As :meth:`load`, which also checks the file.
        """
        return None

    def list_files(self, path: Path) -> tuple[Path, ...]:
        """All files that belong to ``path``, itself first."""
        return (path,)

    def require_present(self, path: Path) -> None:
        """Check that ``path`` exists, and is a file; or a folder, if files of this format are folders.

        Raises:
            FileNotFoundError: If it is not.
        """
        if not path.exists():
            raise FileNotFoundError(f'{path} does not exist')
        if not (path / self.marker).is_file():
            kind = f'a folder with {self.marker} in it, as {self.name} files are' if self.marker else 'a file'
            raise FileNotFoundError(f'{path} is not {kind}')

    def require_writable(self, path: str | Path) -> None:
        """Check that ``path`` and the files that belong to it can be written, before the work is done.

        Raises:
            IsADirectoryError, FileExistsError, PermissionError: If one can't be.
        """
        require_writable(*self.list_files(Path(path)), marker=self.marker)

    @contextmanager
    def replacing(self, path: str | Path) -> Iterator[Path]:
        """Yield a name to write to; all files of it are put in place if the block ends without an error.

        Raises:
            IsADirectoryError, FileExistsError, PermissionError: If one can't be written.
        """
        self.require_writable(path)
        target = Path(path).resolve()
        with ExitStack() as stack:
            # the first file is put in place last, because it refers to the others
            temporary, *_ = [stack.enter_context(replacing(file, self.marker)) for file in self.list_files(target)]
            yield temporary

    def check(self, *, precision: str = 'fp32', dynamic_batch: bool = True, **options: Any) -> None:
        """Check that this format supports the arguments of an export.

        Args:
            precision: Precision of the weights.
            dynamic_batch: Whether the file takes any batch size.
            **options: ``opset``, ``dynamic_size``, ``with_preprocess`` and ``softmax``. None and False mean that the
                option is not used.

        Raises:
            ValueError: If an argument is not supported. The message names it.
        """
        if precision not in self.precisions:
            raise ValueError(
                f'the precision of {self.name} files must be one of {", ".join(self.precisions)}, got {precision}'
            )
        asked = [name for name, value in options.items() if value] + ([] if dynamic_batch else ['dynamic_batch'])
        for option in asked:
            if option not in self.options and not (option == 'dynamic_size' and self.any_size):
                raise ValueError(f'{self.name} files have no {_WORDS[option]}; leave out `{option}`')

    def may_hold(self, path: Path) -> bool:
        """Whether a file with the right ending may be of this format. One that is missing or damaged may be."""
        return True

    def require_packages(self, *, write: bool) -> None:
        """Check that the packages of the format are installed, without importing them.

        Args:
            write: Whether files are to be written, not only run.

        Raises:
            MissingPackageError: If one is not installed.
        """
        packages = (*self.packages, *(self.writing_packages if write else ()))
        extra = (write and self.writing_extra) or self.extra
        require_packages(f'{self.name} files', packages, extra)

    def require_runtime(self) -> None:
        """Check that files of this format can be run here, without importing the runtime.

        Raises:
            NoRuntimeError: If the runtime does not run on this machine.
            MissingPackageError: If it is not installed.
        """
        if obstacle := self.find_obstacle():
            raise NoRuntimeError(f'{self.name} files can not be run here: {obstacle}')
        self.require_packages(write=False)

    def measure_size(self, path: Path) -> int:
        """Size in bytes of all files that belong to ``path``."""
        parts = [part for file in self.list_files(path) for part in (file.rglob('*') if self.marker else [file])]
        return sum(part.stat().st_size for part in parts if part.is_file())


_WORDS = {
    'opset': 'opset',
    'dynamic_batch': 'fixed batch size',
    'dynamic_size': 'free height and width',
    'with_preprocess': 'preprocessing',
    'softmax': 'softmax',
}


class GraphFormat(Format):
    """A format that holds the computation, not only the weights.

    Attributes:
        network_precision: Precision of the network that is written, if it is not the precision of the file.
    """

    network_precision: ClassVar[str | None] = None
    options = frozenset({'dynamic_batch', 'dynamic_size', 'with_preprocess', 'softmax'})

    def write(
        self,
        model: 'nn.Module',
        path: Path,
        metadata: 'ExportMetadata',
        *,
        model_cfg: Any = None,
        opset: int | None = None,
    ) -> None:
        from .network import make_example, wrap_network

        network = wrap_network(model, metadata, self.network_precision or metadata.precision)
        self.write_graph(network, path, make_example(metadata), metadata, opset)

    @abstractmethod
    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        """Trace a network, with preprocessing and softmax inside, by the inputs ``example``, and write it."""
