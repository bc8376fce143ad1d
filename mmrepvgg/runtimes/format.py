"""What a format of exported files is. Imports no torch, so that commands answer at once."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..checkpoints.writing import replacing

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata

PRECISIONS = ('fp32', 'fp16', 'bf16')
# The entry of a file that holds its metadata, as JSON.
ENTRY = 'mmrepvgg'

Ranges = Mapping[str, tuple[float, float]]


class MissingPackageError(ModuleNotFoundError):
    """A format takes a package that is not installed; the message says how to install it."""


def require_packages(what: str, packages: Iterable[str], extra: str) -> None:
    """Say which of ``packages`` are missing for ``what``, and which extra of this project installs them.

    Raises:
        MissingPackageError: If one is not installed.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingPackageError(
            f'{what} take {", ".join(missing)}, not installed here: pip install "mmrepvgg[{extra}]"'
        )


class Format(ABC):
    """One kind of file: what it can hold, what it takes, and how it is written and read.

    A subclass in a module of its own and its object in ``table.FORMATS`` are all that a new format takes: the export,
    the test, the prediction and the benchmark ask this object.

    Attributes:
        name: Its name in messages.
        suffixes: What its files end in.
        precisions: What its weights can be.
        options: Which arguments of the export it knows, of ``'opset'``, ``'dynamic_batch'``, ``'with_preprocess'`` and
            ``'softmax'``.
        packages: Packages that running a file takes, by the name that is imported.
        writing_packages: Packages that writing one takes besides.
        extra: The extra of this project that installs them.
        runtime: What runs the file, by its name in the benchmark; empty if it is not timed there.
        runtime_title: The same for people.
        computes: In which floating precisions the runtime computes on CPUs, whatever a file holds.
        quantizers: What makes int8 files of this format, the default first; none if there are no such files.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    options: ClassVar[frozenset[str]] = frozenset()
    packages: ClassVar[tuple[str, ...]] = ()
    writing_packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ''
    runtime: ClassVar[str] = ''
    runtime_title: ClassVar[str] = ''
    computes: ClassVar[tuple[str, ...]] = PRECISIONS
    quantizers: ClassVar[tuple['Quantizer', ...]] = ()

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
            model: What gives logits ``(N, classes)`` for normalised images ``(N, C, H, W)``; it may be changed to the
                precision.
            path: The file.
            metadata: What the file is and says about itself.
            model_cfg: The config from which the model was built.
            opset: ONNX: version of the operators.

        Raises:
            ExportError: If the model can't be written so.
        """

    @abstractmethod
    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        """Read a file that :meth:`write` wrote.

        Raises:
            CheckpointError: If it is damaged.
            ValueError: If it has no metadata.
        """

    def list_files(self, path: Path) -> tuple[Path, ...]:
        """All files that belong to ``path``, itself first."""
        return (path,)

    @contextmanager
    def replacing(self, path: str | Path) -> Iterator[Path]:
        """Yield a name to write to; all files of it are put in place if the block ends without an error."""
        with ExitStack() as stack:
            # what is opened is put in place last: it knows the others
            temporary, *_ = [stack.enter_context(replacing(file)) for file in self.list_files(Path(path).resolve())]
            yield temporary

    def check(self, *, precision: str = 'fp32', dynamic_batch: bool = True, **options: Any) -> None:
        """Check that files of this format can be what is asked for.

        Args:
            precision: Of the weights.
            dynamic_batch: Whether any batch size is taken.
            **options: ``opset``, ``with_preprocess`` and ``softmax``; what is None or False is not asked for.

        Raises:
            ValueError: If not; the message names what the format has.
        """
        if precision not in self.precisions:
            raise ValueError(
                f'the precision of {self.name} files must be one of {", ".join(self.precisions)}, got {precision}'
            )
        asked = [name for name, value in options.items() if value] + ([] if dynamic_batch else ['dynamic_batch'])
        for option in asked:
            if option not in self.options:
                raise ValueError(f'{self.name} files have no {_WORDS[option]}; leave out `{option}`')

    def require_packages(self, *, write: bool) -> None:
        """Say which packages the format lacks, without importing them.

        Raises:
            MissingPackageError: If one is not installed.
        """
        packages = (*self.packages, *(self.writing_packages if write else ()))
        require_packages(f'{self.name} files', packages, self.extra)

    def measure_size(self, path: Path) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.list_files(path))


_WORDS = {
    'opset': 'opset',
    'dynamic_batch': 'fixed batch size',
    'with_preprocess': 'preprocessing',
    'softmax': 'softmax',
}


class GraphFormat(Format):
    """A format that holds the computation, not only the weights."""

    options = frozenset({'dynamic_batch', 'with_preprocess', 'softmax'})

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

        network = wrap_network(model, metadata, self.find_precision_inside(metadata))
        self.write_graph(network, path, make_example(metadata), metadata, opset)

    def find_precision_inside(self, metadata: 'ExportMetadata') -> str:
        """The precision that the network itself has when it is written."""
        return metadata.precision

    @abstractmethod
    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        """Write a network with all that is around it, as it computes ``example``."""


class Int8Model(ABC):
    """A network with the ranges of its activations, of which files are written.

    Attributes:
        layers: For each convolution and linear layer, by its name in the model, whether it can be int8.
    """

    layers: Mapping[str, bool]

    @abstractmethod
    def write(self, path: Path, metadata: 'ExportMetadata', float_layers: Collection[str] = ()) -> None:
        """Write a file with all layers that can be int8 in int8, but for ``float_layers``."""


class Quantizer(ABC):
    """A library that makes int8 files of float32 ones.

    Attributes:
        name: Its name in settings and messages.
        calibrations: How it can find the ranges of the activations, the default first.
        takes_ranges: Whether it can be given them instead.
        packages: Packages that it takes besides those of the formats, by the name that is imported.
        extra: The extra of this project that installs them.
        source: The format of the float32 files that it starts from; None: that of the int8 files.
    """

    name: ClassVar[str]
    calibrations: ClassVar[tuple[str, ...]]
    takes_ranges: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ''
    source: ClassVar[Format | None] = None

    @abstractmethod
    def calibrate(
        self, path: Path, batches: 'Iterable[np.ndarray]', *, granularity: str, calibration: str
    ) -> Int8Model:
        """Find the ranges of the activations of a float32 file of any batch size, by its inputs ``(N, C, H, W)``."""

    def use_ranges(self, path: Path, ranges: Ranges, *, granularity: str) -> Int8Model:
        """Take the ranges of the inputs of the convolutions named, which alone can be int8 then.

        Raises:
            ValueError: If a convolution does not exist, or a range can't be used.
        """
        raise NotImplementedError(f'{self.name} takes no ranges')

    def require_packages(self, row: Format) -> None:
        """Say which packages are missing for int8 files of the format ``row``, without importing them.

        Raises:
            MissingPackageError: If one is not installed.
        """
        for part in (row, self.source):
            if part is not None:
                part.require_packages(write=True)
        require_packages(f'int8 {row.name} files', self.packages, self.extra)
