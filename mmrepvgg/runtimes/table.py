"""The formats of exported files, by their endings. Imports no torch."""

from pathlib import Path

from .format import Format
from .onnx import ONNX
from .openvino import OPENVINO
from .safetensors import SAFETENSORS
from .torch_export import TORCH_EXPORT
from .torchscript import TORCHSCRIPT

FORMATS: list[Format] = [ONNX, OPENVINO, TORCH_EXPORT, TORCHSCRIPT, SAFETENSORS]


def list_suffixes() -> tuple[str, ...]:
    """What exported files end in."""
    return tuple(suffix for row in FORMATS for suffix in row.suffixes)


def is_exported(path: str | Path) -> bool:
    """Whether a file is an exported one, by its ending."""
    return Path(path).suffix in list_suffixes()


def find_format(path: str | Path) -> Format:
    """The format of a file by its name.

    Raises:
        ValueError: If there is none with such an ending.
    """
    for row in FORMATS:
        if Path(path).suffix in row.suffixes:
            return row
    raise ValueError(f'must end in {", ".join(list_suffixes())}, got {str(path)!r}')


def list_quantizers() -> tuple[str, ...]:
    """Names of what makes int8 files, of all formats."""
    return tuple(dict.fromkeys(quantizer.name for row in FORMATS for quantizer in row.quantizers))


def list_calibrations() -> tuple[str, ...]:
    """How ranges of activations can be found, by all quantizers."""
    methods = [method for row in FORMATS for quantizer in row.quantizers for method in quantizer.calibrations]
    return tuple(dict.fromkeys(methods))
