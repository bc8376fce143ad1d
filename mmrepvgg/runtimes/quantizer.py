"""What a maker of int8 files is. Imports no torch, so that commands answer at once."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .format import Format, require_packages

if TYPE_CHECKING:
    import numpy as np

    from .metadata import ExportMetadata

Ranges = Mapping[str, tuple[float, float]]


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


def name_layer(weight: str) -> str:
    """A layer's name, from the name that an exporter gave its weight; a block's convolution has the block's name."""
    from ..models.forms import DEPLOY_BRANCH

    name = weight.removeprefix('network.').removeprefix('model.').removesuffix('.weight')
    return name.removesuffix(f'.{DEPLOY_BRANCH}')
