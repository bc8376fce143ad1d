"""The interface of a quantizer, which makes int8 files of a format. Imports no torch: commands answer at once."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .format import Format, require_packages

if TYPE_CHECKING:
    import numpy as np

    from .metadata import ExportMetadata

# Smallest and largest value of the input of a convolution, by the name of the convolution in the deploy form.
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Int8Model(ABC):
    """A network with the ranges of its activations, ready to be written.

    Attributes:
        layers: Whether a layer can be int8, by the name of the convolution or linear layer in the model.
    """

    layers: Mapping[str, bool]

    @abstractmethod
    def write(self, path: Path, metadata: 'ExportMetadata', float_layers: Collection[str] = ()) -> None:
        """Write a file. All layers that can be int8 are int8, except ``float_layers``."""


class Quantizer(ABC):
    """A library that makes int8 files from float32 files.

    Attributes:
        name: Name of the quantizer in settings and messages.
        calibrations: Methods that find the ranges of the activations, the default first.
        without_images: Calibrations for which the quantizer needs no images, because the runtime finds the ranges.
        takes_ranges: Whether the quantizer also takes given ranges.
        keeps_rounded: Whether weights keep their values that are on the grid already: multiples of the largest absolute
            weight over 127.
        packages: Packages that it needs besides those of the formats, by the names that are imported.
        extra: Name of the extra of this project that installs them.
        source: Format of the float32 files. None means the format of the int8 files.
    """

    name: ClassVar[str]
    calibrations: ClassVar[tuple[str, ...]]
    without_images: ClassVar[tuple[str, ...]] = ()
    takes_ranges: ClassVar[bool] = False
    keeps_rounded: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ''
    source: ClassVar[Format | None] = None

    @abstractmethod
    def calibrate(
        self, path: Path, batches: 'Iterable[np.ndarray]', *, granularity: str, calibration: str
    ) -> Int8Model:
        """Find the ranges of the activations.

        Args:
            path: A float32 file that takes any batch size.
            batches: Inputs of the file, ``(N, C, H, W)``; none for a calibration of ``without_images``.
            granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
            calibration: One of ``calibrations``.
        """

    def use_ranges(self, path: Path, ranges: Ranges, *, granularity: str) -> Int8Model:
        """Take given ranges. Only the convolutions that are named in ``ranges`` can be int8.

        Args:
            path: A float32 file that takes any batch size.
            ranges: Ranges of the inputs of convolutions.
            granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.

        Raises:
            ValueError: If a convolution does not exist, or a range can't be used.
        """
        raise NotImplementedError(f'{self.name} does not take given ranges')

    def require_packages(self, row: Format) -> None:
        """Check that the packages for int8 files of the format ``row`` are installed, without importing them.

        Raises:
            MissingPackageError: If one is not installed.
        """
        for part in (row, self.source):
            if part is not None:
                part.require_packages(write=True)
        require_packages(f'int8 {row.name} files', self.packages, self.extra)


def find_layer(weight: str) -> str:
    """The name of a layer in the classifier, by its name in a network that is written, or by the name of its weight."""
    from ..models.forms import name_layer

    return name_layer(weight.removeprefix('network.').removeprefix('model.').removesuffix('.weight'))
