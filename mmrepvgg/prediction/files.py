"""Write predictions into a JSON or a CSV file. Imports no torch."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.writing import replacing

if TYPE_CHECKING:
    from .predictor import Prediction

COLUMNS = ('image', 'rank', 'label', 'class', 'score', 'error')


def write_predictions(path: str | Path, predictions: 'Sequence[Prediction]') -> None:
    """Write predictions in their order. The file appears when it is complete.

    JSON: a list with ``{"image", "predictions": [{"label", "class", "score"}, ...]}`` for each image, best class first,
    or ``{"image", "error"}``. CSV: the columns of ``COLUMNS``, with a line for each image and rank (from 1), or a line
    with the error of an image.

    Args:
        path: File that ends in ``.json`` or ``.csv``.
        predictions: Predictions to write.

    Raises:
        ValueError: If ``path`` has another ending.
    """
    writers = {'.json': _write_json, '.csv': _write_csv}
    if Path(path).suffix not in writers:
        raise ValueError(f'`path` must end in {" or ".join(writers)}, got {path}')
    with replacing(path) as temporary:
        writers[Path(path).suffix](temporary, predictions)


def _write_json(path: Path, predictions: 'Sequence[Prediction]') -> None:
    content = [
        dict(image=str(p.image), error=p.error)
        if p.error
        else dict(
            image=str(p.image),
            predictions=[{'label': c.label, 'class': c.name, 'score': c.score} for c in p.classes],
        )
        for p in predictions
    ]
    path.write_text(json.dumps(content, indent=1) + '\n')


def _write_csv(path: Path, predictions: 'Sequence[Prediction]') -> None:
    # names of files need not be UTF-8
    with open(path, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        for p in predictions:
            if p.error:
                writer.writerow((p.image, '', '', '', '', p.error))
            for rank, ranked in enumerate(p.classes, 1):
                writer.writerow((p.image, rank, ranked.label, ranked.name, ranked.score, ''))
