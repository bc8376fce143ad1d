"""A config's test images, preprocessed, as files that any machine can read."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..checkpoints.writing import require_writable
from ..data.images import UnreadableImageError
from ..data.samples import Samples
from ..progress import track
from .listing import DTYPES, FORMATS, ListedImage, make_names, write_list

_ERROR_NAME = f'{UnreadableImageError.__module__}.{UnreadableImageError.__name__}: '


@dataclass(frozen=True)
class WrittenInputs:
    """What was written.

    Attributes:
        num_images: Number of images.
        num_files: Number of files of inputs.
        shape: Shape of a full file's array, (N, C, H, W).
    """

    num_images: int
    num_files: int
    shape: tuple[int, ...]


def write_inputs(
    cfg: Config,
    folder: str | Path,
    *,
    file_format: str = 'npz',
    batch_size: int = 1,
    dtype: str = 'float32',
    fill: bool = False,
    entry: str = 'images',
) -> WrittenInputs:
    """Write the images of ``cfg.test_dataloader`` as the model sees them, and a list of them.

    ``folder`` gets ``inputs/<name>.npz`` (or, of several images each, ``inputs/batch_000000.npz``), ``list.csv`` with
    the columns name, file, row, label, image, and ``info.json``. It appears when all is written. One batch after the
    other is in memory, and those that the loader's workers have read ahead.

    Args:
        cfg: The config.
        folder: Where to write; must not exist, or be empty.
        file_format: ``'npz'``, whose one entry is named ``entry``, or ``'npy'``.
        batch_size: Images of a file. Arrays are (N, C, H, W), also for one image.
        dtype: ``'float32'`` or ``'float16'``: normalised; ``'uint8'``: pixels as the pipeline gives them (BGR), for
            models that normalise by themselves.
        fill: Fill the last file with zeros to ``batch_size`` rows, for models of a fixed batch size.
        entry: The name of the model's input.

    Raises:
        FileExistsError: If ``folder`` holds something.
        DataError: If the images are of other classes than the model.
        ValueError: If an image can't be read or has no label, or sizes differ.
        OSError: If ``folder`` can't be written, or the disk is too small.
    """
    if file_format not in FORMATS:
        raise ValueError(f'`file_format` must be one of {FORMATS}, got {file_format!r}')
    if dtype not in DTYPES:
        raise ValueError(f'`dtype` must be one of {DTYPES}, got {dtype!r}')
    if batch_size < 1:
        raise ValueError(f'`batch_size` must be at least 1, got {batch_size}')
    if entry in ('file', 'allow_pickle'):
        raise ValueError(f'`entry` must be another name, got {entry!r}, which numpy takes for an argument of its own')
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f'{folder} exists and is not an empty folder; move it away or name another one')
    require_writable(folder / 'list.csv')

    samples = Samples(cfg, 'test')
    infos = [samples.get_info(index) for index in range(len(samples))]
    paths = [str(info['img_path']) for info in infos]
    if any(info.get('gt_label') is None for info in infos):
        raise ValueError('the test images of the config must have labels, by which outputs are scored; some have none')
    names = make_names(paths)
    num_files = -(-len(samples) // batch_size)
    temporary = folder.with_name(f'.{folder.name}.{os.getpid()}')
    try:
        (temporary / 'inputs').mkdir(parents=True)
        images: list[ListedImage] = []
        batches = _iterate_batches(cfg, samples, batch_size, normalised=dtype != 'uint8')
        for number, inputs in enumerate(track(batches, 'writing the inputs', total=num_files)):
            first = len(images)
            file = f'inputs/{names[first] if batch_size == 1 else f"batch_{number:06d}"}.{file_format}'
            images += [
                ListedImage(names[first + row], file, row, int(infos[first + row]['gt_label']))
                for row in range(len(inputs))
            ]
            array = inputs.numpy().astype(dtype)
            if fill and len(array) < batch_size:
                array = np.concatenate([array, np.zeros((batch_size - len(array), *array.shape[1:]), array.dtype)])
            if not number:
                _check_space(temporary, array.nbytes * num_files)
                shape = array.shape
            if file_format == 'npz':
                entries: dict[str, Any] = {entry: array}
                np.savez(temporary / file, **entries)
            else:
                np.save(temporary / file, array)
        information = dict(
            num_images=len(images),
            num_classes=cfg.model.head.num_classes,
            format=file_format,
            entry=entry if file_format == 'npz' else None,
            shape=list(shape),
            dtype=dtype,
            normalised=dtype != 'uint8',
            batch_size=batch_size,
            filled=fill,
        )
        write_list(temporary, images, paths, information)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return WrittenInputs(len(images), num_files, shape)


def _iterate_batches(cfg: Config, samples: Samples, batch_size: int, *, normalised: bool) -> Iterator[Tensor]:
    """Inputs ``(N, C, H, W)`` in their order, all of one size."""
    num_workers = cfg.test_dataloader.get('num_workers', 0)
    batches = iter(DataLoader(samples, batch_size, num_workers=num_workers, collate_fn=pseudo_collate))
    preprocess = _build_preprocessor(cfg)
    shape: torch.Size | None = None
    position = 0
    while True:
        try:
            batch = next(batches, None)
        except UnreadableImageError as error:
            # of a worker it has the whole traceback; the last line is the reason
            raise UnreadableImageError(str(error).strip().splitlines()[-1].removeprefix(_ERROR_NAME)) from error
        if batch is None:
            return
        for image in batch['inputs']:
            shape = shape or image.shape
            if image.shape != shape:
                raise ValueError(
                    f'all inputs must have one size, got {tuple(image.shape)} for '
                    f'{samples.get_info(position)["img_path"]} after {tuple(shape)}; end the test pipeline with a '
                    'resize or crop to a fixed size'
                )
            position += 1
        yield preprocess(batch)['inputs'] if normalised else torch.stack(batch['inputs'])


def _build_preprocessor(cfg: Config) -> nn.Module:
    """The model's own preprocessing, without the model."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        return MODELS.build({'type': 'mmpretrain.ClsDataPreprocessor', **preprocessor}).eval()


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f'the inputs take {needed / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free; choose another '
            "disk, or `dtype` 'float16' or 'uint8', which take a half or a quarter"
        )
