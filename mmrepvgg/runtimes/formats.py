"""The formats of exported files, what each can hold, and what it takes. Imports no torch, so that the tools are fast.

A row of the table is all that the tools know of a format; writers.py and runtimes.py have one function for each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PRECISIONS = ('fp32', 'fp16', 'bf16')


class MissingPackageError(ModuleNotFoundError):
    """A format takes a package that is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: Its name in messages.
        suffixes: What its files end in.
        precisions: What its weights can be.
        options: Which of ``'opset'``, ``'fixed batch size'``, ``'preprocessing'`` and ``'softmax'`` it can have.
        to_write: Packages that writing takes, by the name that is imported.
        to_run: Packages that running takes.
        extra: The extra of this project that installs them.
    """

    name: str
    suffixes: tuple[str, ...]
    precisions: tuple[str, ...]
    options: frozenset[str]
    to_write: tuple[str, ...] = ()
    to_run: tuple[str, ...] = ()
    extra: str = ''


_GRAPH = frozenset({'preprocessing', 'softmax'})

FORMATS = (
    # no bf16: ONNX Runtime has no bfloat16 convolution on CPUs, so such a file could not be verified
    Format(
        'ONNX',
        ('.onnx',),
        ('fp32', 'fp16'),
        _GRAPH | {'opset', 'fixed batch size'},
        ('onnx', 'onnxscript', 'onnxruntime'),
        ('onnxruntime',),
        'onnx',
    ),
    Format('OpenVINO', ('.xml',), PRECISIONS, _GRAPH | {'fixed batch size'}, ('openvino',), ('openvino',), 'openvino'),
    Format('torch.export', ('.pt2',), PRECISIONS, _GRAPH | {'fixed batch size'}),
    Format('TorchScript', ('.ts', '.torchscript'), PRECISIONS, _GRAPH),
    Format(
        'safetensors', ('.safetensors',), PRECISIONS, frozenset(), ('safetensors',), ('safetensors',), 'safetensors'
    ),
)

EXPORTED_SUFFIXES = tuple(suffix for row in FORMATS for suffix in row.suffixes)


def is_exported(path: str | Path) -> bool:
    """Whether a file is an exported one, by its ending."""
    return Path(path).suffix in EXPORTED_SUFFIXES


def find_format(path: str | Path) -> Format:
    """The format of a file by its name.

    Raises:
        ValueError: If there is none with such an ending.
    """
    for row in FORMATS:
        if Path(path).suffix in row.suffixes:
            return row
    raise ValueError(f'must end in {", ".join(EXPORTED_SUFFIXES)}, got {str(path)!r}')


def check_options(row: Format, precision: str, options: Iterable[str]) -> None:
    """Check that a format has a precision and every option.

    Raises:
        ValueError: If not; the message names what the format has.
    """
    if precision not in row.precisions:
        raise ValueError(
            f'the precision of {row.name} files must be one of {", ".join(row.precisions)}, got {precision}'
        )
    for option in options:
        if option not in row.options:
            having = ', '.join(other.name for other in FORMATS if option in other.options)
            raise ValueError(f'{row.name} files have no {option}; those of {having} have it')


def require_packages(row: Format, *, write: bool) -> None:
    """Say which packages a format lacks, without importing them.

    Raises:
        MissingPackageError: If one is not installed.
    """
    packages = row.to_write if write else row.to_run
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingPackageError(
            f'{row.name} files take {", ".join(missing)}, not installed here: pip install "mmrepvgg[{row.extra}]"'
        )
