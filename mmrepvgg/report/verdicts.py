"""The predictions of `analyze` about int8, if it wrote them into the work dir. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..printable import make_printable
from ..quantization.analysis.verdict import LEVELS, Prediction

# Larger files are not of `analyze`.
_MAX_SIZE = 50_000_000


@dataclass(frozen=True)
class Int8Verdict:
    """What a file of `analyze` says.

    Attributes:
        name: Name of the file.
        is_older: Whether it is older than the checkpoint of the report.
        num_images: Number of images on which int8 was simulated.
        predictions: Predicted losses.
        causes: Sentence about each layer that does much harm.
        advice: Sentences with advice.
    """

    name: str
    is_older: bool
    num_images: int
    predictions: tuple[Prediction, ...]
    causes: tuple[str, ...]
    advice: tuple[str, ...]


def find_verdict(work_dir: str | Path, checkpoint: Path) -> Int8Verdict | None:
    """Read the newest file of `analyze` in a folder; None if there is none."""
    paths = [path for path in Path(work_dir).glob('*.json') if path.is_file() and path.stat().st_size < _MAX_SIZE]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            return _read(path, path.stat().st_mtime_ns < checkpoint.stat().st_mtime_ns)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a JSON file of something else
    return None


def _read(path: Path, is_older: bool) -> Int8Verdict:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    verdict = content['verdict']
    predictions = tuple(Prediction(**each) for each in verdict['predictions'])
    if not all(each.level in LEVELS and isinstance(each.drop + each.low + each.high, float) for each in predictions):
        raise ValueError(f'{path} holds no predictions of `analyze`')
    return Int8Verdict(
        make_printable(path.name),
        is_older,
        int(content['fp32']['num_images']),
        predictions,
        tuple(make_printable(str(each)) for each in verdict['causes']),
        tuple(make_printable(str(each)) for each in verdict['advice']),
    )
