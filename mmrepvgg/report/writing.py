"""One page about a training, in one file."""

import os
from collections.abc import Iterable
from pathlib import Path

from ..checkpoints.writing import replacing, require_writable
from .contents import gather
from .page import render


def write_report(
    work_dir: str | Path,
    out: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    exported: Iterable[str | Path] | None = None,
    num_samples: int = 512,
) -> Path:
    """Write one HTML page about a training: what was learnt, what goes wrong, and what the switch did.

    The page needs no other file and no network, and has no script. The validation images are those of the config.

    Args:
        work_dir: Folder into which `train` wrote. It holds the config and the log.
        out: File to write. Default: ``report.html`` in ``work_dir``.
        checkpoint: Checkpoint of the training. Default: the latest whole one in ``work_dir``.
        exported: Files of `export_model` and `quantize_model` that are measured, too. Default: those in ``work_dir``.
            Files of torch.export and TorchScript are programs.
        num_samples: Number of validation images. If there are more, they are drawn, always the same.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If ``work_dir`` holds no config or no checkpoint.
        CheckpointError: If the checkpoint can't be read, or does not fit the config.
        DataError: If the validation images are not where the config says, or are of other classes than the model.
        UnfitModelError: If the model is no classifier with one label an image on a RepVGG.
        ValueError: If the images have no labels, or if ``num_samples`` is below 1.
        OSError: If ``out`` can't be written.
    """
    if num_samples < 1:
        raise ValueError(f'`num_samples` must be at least 1, got {num_samples}')
    path = Path(work_dir, 'report.html') if out is None else Path(out)
    require_writable(path)
    page = render(gather(work_dir, checkpoint, exported, num_samples), Path(os.path.abspath(work_dir)).name)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding='utf-8')
    return path
