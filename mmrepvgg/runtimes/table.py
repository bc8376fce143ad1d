"""The formats of exported files, by their endings. Imports no torch."""

from pathlib import Path

from .coreml import COREML
from .executorch import EXECUTORCH
from .format import Format
from .litert import LITERT
from .ncnn import NCNN
from .onnx import ONNX
from .openvino import OPENVINO
from .safetensors import SAFETENSORS
from .torch_export import TORCH_EXPORT
from .torchscript import TORCHSCRIPT

FORMATS: list[Format] = [ONNX, OPENVINO, TORCH_EXPORT, TORCHSCRIPT, NCNN, LITERT, EXECUTORCH, COREML, SAFETENSORS]


def list_suffixes() -> tuple[str, ...]:
    """The endings of exported files."""
    return tuple(suffix for row in FORMATS for suffix in row.suffixes)


def is_exported(path: str | Path) -> bool:
    """Whether a file has the ending of an exported file, and is not one of weights alone that has the same ending."""
    return any(Path(path).suffix.lower() in row.suffixes and row.may_hold(Path(path)) for row in FORMATS)


def find_format(path: str | Path) -> Format:
    """The format of a file, by its ending.

    Raises:
        ValueError: If no format has this ending.
    """
    for row in FORMATS:
        if Path(path).suffix.lower() in row.suffixes:
            return row
    raise ValueError(f'must end in {", ".join(list_suffixes())}, got {str(path)!r}')


def list_quantizers() -> tuple[str, ...]:
    """Names of the quantizers of all formats."""
    return tuple(dict.fromkeys(quantizer.name for row in FORMATS for quantizer in row.quantizers))


def list_calibrations() -> tuple[str, ...]:
    """Names of the calibrations of all quantizers."""
    methods = [method for row in FORMATS for quantizer in row.quantizers for method in quantizer.calibrations]
    return tuple(dict.fromkeys(methods))
