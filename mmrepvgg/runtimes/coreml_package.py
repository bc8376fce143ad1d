"""Core ML's packages: folders with a description, a program and weights. They are read without Core ML."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.seals import OPEN_SEAL, SEAL_ENTRY, check_seal, close_seal
from .format import ENTRY

if TYPE_CHECKING:
    from .metadata import ExportMetadata

# Parts of a package, in the places where coremltools writes them.
MODEL = 'Data/com.apple.CoreML/model.mlmodel'
WEIGHTS = 'Data/com.apple.CoreML/weights/weight.bin'


INPUT = 'images'
OUTPUT = 'scores'

# Core ML needs limits for what is free.
_BATCHES = (1, 1024)
_SIZES = (32, 2048)

# Kinds of pictures, by the number of channels. Core ML makes them of a camera's buffers.
LAYOUTS = {1: 'GRAYSCALE', 3: 'BGR'}

Range = tuple[int, int]


def import_coremltools() -> Any:
    """coremltools, without its notes about what is missing on this system and about versions."""
    from .quiet import quiet

    with quiet():
        import coremltools
    return coremltools


def list_ranges(metadata: 'ExportMetadata') -> list[Range]:
    """Smallest and largest N, C, H and W that a file takes at once. A file with preprocessing takes one picture."""
    fixed = 1 if metadata.with_preprocess else metadata.batch_size
    sizes = [
        (min(size, _SIZES[0]), max(size, _SIZES[1])) if metadata.dynamic_size else (size, size)
        for size in metadata.input_size
    ]
    return [(fixed, fixed) if fixed else _BATCHES, (metadata.channels, metadata.channels), *sizes]


def seal_package(path: Path, metadata: 'ExportMetadata') -> None:
    """Write the metadata and the SHA-256 of a package into it, and let others than its owner read it."""
    spec = import_coremltools().utils.load_spec(str(path))
    entries = spec.description.metadata.userDefined
    entries[ENTRY] = metadata.to_json()
    entries[SEAL_ENTRY] = OPEN_SEAL
    (path / MODEL).write_bytes(close_seal(spec.SerializeToString(), (path / WEIGHTS).read_bytes()))
    shutil.copymode(path / WEIGHTS, path / MODEL)
    shutil.copymode(path / 'Data', (path / WEIGHTS).parent)


def read_package(path: Path) -> tuple[Any, 'ExportMetadata']:
    """Read a package, and check that it is what its metadata say.

    Returns:
        tuple: Core ML's description, which has the program, and the metadata.

    Raises:
        CheckpointError: If it is damaged.
        ValueError: If it has no metadata.
    """
    from ..checkpoints.reading import CheckpointError, as_checkpoint_errors
    from .metadata import ExportMetadata

    coremltools = import_coremltools()
    with as_checkpoint_errors(path):
        spec = coremltools.utils.load_spec(str(path))
    entries = spec.description.metadata.userDefined
    metadata = ExportMetadata.from_json(entries.get(ENTRY), path)
    with as_checkpoint_errors(path):
        if not check_seal((path / MODEL).read_bytes(), (path / WEIGHTS).read_bytes()):
            raise CheckpointError(f'{path} is damaged: its content does not have the SHA-256 that it names')
    expected = _describe_expected(metadata)
    if (found := _describe(spec.description)) != expected:
        raise CheckpointError(f'{path} must be a network from {expected}, as its metadata say, got {found}')
    return spec, metadata


def _describe_expected(metadata: 'ExportMetadata') -> str:
    kind = f'{LAYOUTS[metadata.channels]} picture' if metadata.with_preprocess else 'FLOAT32'
    return f'{INPUT} {kind} {_format(list_ranges(metadata))} to {OUTPUT} FLOAT32'


def _describe(description: Any) -> str:
    """The inputs and outputs of a package in words."""
    inputs = ', '.join(f'{feature.name} {_describe_type(feature.type)}' for feature in description.input)
    outputs = ', '.join(f'{feature.name} {_name_dtype(feature.type.multiArrayType)}' for feature in description.output)
    return f'{inputs} to {outputs}'


def _describe_type(kind: Any) -> str:
    if kind.WhichOneof('Type') == 'imageType':
        image = kind.imageType
        layout = image.ColorSpace.Name(image.colorSpace)
        sizes = [(image.height, image.height), (image.width, image.width)]
        if image.HasField('imageSizeRange'):
            free = image.imageSizeRange
            sizes = [(part.lowerBound, part.upperBound) for part in (free.heightRange, free.widthRange)]
        channels = next((number for number, name in LAYOUTS.items() if name == layout), 0)
        return f'{layout} picture {_format([(1, 1), (channels, channels), *sizes])}'
    array = kind.multiArrayType
    free = [(part.lowerBound, part.upperBound) for part in array.shapeRange.sizeRanges]
    return f'{_name_dtype(array)} {_format(free or [(size, size) for size in array.shape])}'


def _name_dtype(array: Any) -> str:
    return array.ArrayDataType.Name(array.dataType)


def _format(ranges: Sequence[Range]) -> str:
    return f'({", ".join(str(low) if low == high else f"{low} to {high}" for low, high in ranges)})'
