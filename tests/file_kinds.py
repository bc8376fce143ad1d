"""The kinds of exported files that the tests go through, and the options that each kind has."""

from pathlib import Path
from typing import Any

from mmrepvgg.runtimes.exported_model import ExportedModel
from mmrepvgg.runtimes.format import GraphFormat
from mmrepvgg.runtimes.table import FORMATS, find_format

SUFFIXES = [suffix for row in FORMATS for suffix in row.suffixes]
RUNNABLE = [suffix for row in FORMATS if not row.find_obstacle() for suffix in row.suffixes]
GRAPHS = [suffix for row in FORMATS if isinstance(row, GraphFormat) for suffix in row.suffixes]
DYNAMIC_SIZES = [suffix for row in FORMATS if row.any_size or 'dynamic_size' in row.options for suffix in row.suffixes]

# Everything that a file can have at once: fewer exports, and what works together works alone.
_ALL_OPTIONS = dict(with_preprocess=True, softmax=True, dynamic_batch=False)


def list_full_options(suffix: str) -> dict[str, Any]:
    """The most that a file of this kind can have: half precision, preprocessing and softmax inside, batches of 2."""
    row = find_format(f'net{suffix}')
    options: dict[str, Any] = {name: value for name, value in _ALL_OPTIONS.items() if name in row.options}
    try:
        row.check(**options)
    except ValueError:  # not together
        options.pop('dynamic_batch')
    half = [precision for precision in ('fp16', 'bf16') if precision in row.precisions]
    return (
        options | (dict(precision=half[0]) if half else {}) | (dict(batch_size=2) if 'dynamic_batch' in options else {})
    )


def load_to_check(path: Path) -> ExportedModel:
    """What is in an exported file, as a module, also where its runtime does not run."""
    return find_format(path).load_to_check(path)


def list_files(path: Path) -> set[Path]:
    """All files of an exported file."""
    return set(find_format(path).list_files(path))
