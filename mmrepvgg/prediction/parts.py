"""Predictions of many images in parts: one Parquet file a part, and a note of what they were made with."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..checkpoints.reading import hash_file
from ..checkpoints.writing import replacing
from ..data.wrappers import get_test_pipeline
from ..runtimes.table import find_format, is_exported
from .predictor import Prediction

try:
    import pyarrow
    from pyarrow import parquet
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('Parquet files are written by pyarrow: pip install "mmrepvgg[ray]"') from error

SETTINGS = 'settings.json'
SCHEMA = pyarrow.schema(
    dict(
        image=pyarrow.string(),
        labels=pyarrow.list_(pyarrow.int32()),
        classes=pyarrow.list_(pyarrow.string()),
        scores=pyarrow.list_(pyarrow.float32()),
        error=pyarrow.string(),
    )
)


def write_part(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a part. The file appears when it is complete.

    An image is a row, with the columns of :data:`SCHEMA`: ``labels``, ``classes`` and ``scores`` are lists, best class
    first. Where an image could not be read, they are empty and ``error`` says why; else ``error`` is null.
    """
    rows = [
        dict(
            # names of files need not be UTF-8
            image=str(prediction.image).encode(errors='backslashreplace').decode(),
            labels=[ranked.label for ranked in prediction.classes],
            classes=[ranked.name for ranked in prediction.classes],
            scores=[ranked.score for ranked in prediction.classes],
            error=prediction.error.encode(errors='backslashreplace').decode() or None,
        )
        for prediction in predictions
    ]
    with replacing(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows, SCHEMA), temporary)


def count_rows(path: Path) -> tuple[int, int]:
    """Number of images in a part, and number of those that could not be read."""
    errors = parquet.read_table(path, columns=['error'])['error']
    return len(errors), len(errors) - errors.null_count


def describe_settings(cfg: Config, weights: str | Path, images: Sequence[Path], **options: int) -> dict[str, Any]:
    """What the predictions depend on. Parts with the same settings belong together."""
    parts = (cfg.get('model'), cfg.get('data_preprocessor'), get_test_pipeline(cfg))
    return dict(
        weights=_hash_weights(Path(weights)),
        config=hashlib.sha256(repr(parts).encode()).hexdigest(),
        images=hashlib.sha256(b'\0'.join(map(os.fsencode, images))).hexdigest(),
        num_images=len(images),
        **options,
    )


def _hash_weights(path: Path) -> str:
    """The hash of a file; or of all files of a format that has several, or that is a folder."""
    files = find_format(path).list_files(path) if is_exported(path) else (path,)
    hashes = [
        hash_file(inner)
        for file in files
        for inner in (sorted(each for each in file.rglob('*') if each.is_file()) if file.is_dir() else (file,))
    ]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(''.join(hashes).encode()).hexdigest()


def prepare_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings in a new folder, or compare them with those of the parts in it.

    Raises:
        FileExistsError: If the folder holds predictions with other settings, or parts without a note of them.
    """
    note = folder / SETTINGS
    if note.exists():
        try:
            noted = json.loads(note.read_text())
            different = [name for name in {**settings, **noted} if noted.get(name) != settings.get(name)]
        except (ValueError, TypeError, AttributeError):
            different = ['settings']
        if different:
            raise FileExistsError(
                f'{folder} holds predictions with other {", ".join(different)} ({SETTINGS} has them); go on with the '
                'same, remove the folder, or name another one'
            )
    elif any(folder.glob('part-*.parquet')):
        raise FileExistsError(f'{folder} holds Parquet files, and no {SETTINGS} of `predict_many`; name another folder')
    # a run that was killed leaves such files
    for path in folder.glob('.*.part-*.parquet'):
        path.unlink()
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + '\n')
