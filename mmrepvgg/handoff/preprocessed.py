"""Write a config's test images, preprocessed, into files that any machine can read."""

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

from ..checkpoints.leftovers import clear_leftovers, name_temporary
from ..checkpoints.writing import require_writable
from ..data.images import UnreadableImageError
from ..data.layout import get_num_classes
from ..data.samples import Samples
from ..printable import make_printable
from ..progress import track
from .listing import DTYPES, FORMATS, ListedImage, make_names, write_list

_ERROR_NAME = f'{UnreadableImageError.__module__}.{UnreadableImageError.__name__}: '


@dataclass(frozen=True)
class WrittenInputs:
    """A summary of the written files.

    Attributes:
        num_images: Number of images.
        num_files: Number of files of inputs.
        shape: Shape ``(N, C, H, W)`` of the array in the first file.
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

    ``folder`` gets ``inputs/<name>.npz`` (or ``inputs/batch_000000.npz``, if a file holds several images),
    ``list.csv`` with the columns name, file, row, label, image, and ``info.json``. It appears when it is complete.

    Args:
        cfg: The config.
        folder: Folder to write. It must not exist, or be empty.
        file_format: ``'npz'`` or ``'npy'``.
        batch_size: Number of images in a file. Arrays have the shape ``(N, C, H, W)``, even for one image.
        dtype: ``'float32'`` or ``'float16'`` for normalised images, or ``'uint8'`` for the pixels that the pipeline
            gives (BGR), for models that normalise by themselves.
        fill: Fill the last file with zeros up to ``batch_size`` rows, for models with a fixed batch size.
        entry: Name of the array in a ``.npz`` file: that of the model's input.

    Raises:
        FileExistsError: If ``folder`` holds something.
        DataError: If the images are of other classes than the model.
        ValueError: If an argument is out of range, if an image can't be read or has no label, or if sizes differ.
        OSError: If ``folder`` can't be written, or the disk is too small.
    """
    if file_format not in FORMATS:
        raise ValueError(f'`file_format` must be one of {FORMATS}, got {file_format!r}')
    if dtype not in DTYPES:
        raise ValueError(f'`dtype` must be one of {DTYPES}, got {dtype!r}')
    if batch_size < 1:
        raise ValueError(f'`batch_size` must be at least 1, got {batch_size}')
    if entry in ('file', 'allow_pickle'):
        raise ValueError(f'`entry` must be another name, got {entry!r}, which is an argument of numpy.savez')
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f'{folder} exists and is not an empty folder; move it away or name another one')
    require_writable(folder / 'list.csv')

    samples = Samples(cfg, 'test')
    infos = [samples.get_info(index) for index in range(len(samples))]
    paths = [str(info['img_path']) for info in infos]
    if any(info.get('gt_label') is None for info in infos):
        raise ValueError('the test images of the config must have labels, with which outputs are compared; some do not')
    names = make_names(paths)
    num_files = -(-len(samples) // batch_size)
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder.parent)
    temporary = name_temporary(folder)
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
            num_classes=get_num_classes(cfg),
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
    """Batches of inputs ``(N, C, H, W)`` in their order. All have the same size."""
    num_workers = cfg.test_dataloader.get('num_workers', 0)
    batches = iter(DataLoader(samples, batch_size, num_workers=num_workers, collate_fn=pseudo_collate))
    preprocess = _build_preprocessor(cfg)
    shape: torch.Size | None = None
    position = 0
    while True:
        try:
            batch = next(batches, None)
        except UnreadableImageError as error:
            # The message of a worker's error is a whole traceback. The reason is in its last line.
            raise UnreadableImageError(str(error).strip().splitlines()[-1].removeprefix(_ERROR_NAME)) from error
        if batch is None:
            return
        for image in batch['inputs']:
            shape = shape or image.shape
            if image.shape != shape:
                name = make_printable(str(samples.get_info(position)['img_path']))
                raise ValueError(
                    f'all inputs must have one size, got {tuple(image.shape)} for {name} after {tuple(shape)}; end the '
                    'test pipeline with a resize or crop to a fixed size'
                )
            position += 1
        yield preprocess(batch)['inputs'] if normalised else torch.stack(batch['inputs'])


def _build_preprocessor(cfg: Config) -> nn.Module:
    """Build the data preprocessor of the model, without the model."""
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
