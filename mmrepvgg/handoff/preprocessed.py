"""A config's test images, preprocessed, as files that any machine can read."""

import copy
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

from ..data.layout import check_classes
from ..progress import track
from .listing import DTYPES, FORMATS, ListedImage, make_names, write_list


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
        ValueError: If an image can't be read, or sizes differ.
        OSError: If the disk is too small.
    """
    if file_format not in FORMATS:
        raise ValueError(f'file_format must be one of {FORMATS}, got {file_format!r}')
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be one of {DTYPES}, got {dtype!r}')
    if batch_size < 1:
        raise ValueError(f'batch_size must be at least 1, got {batch_size}')
    if entry in ('file', 'allow_pickle'):
        raise ValueError(f'entry must be another name, got {entry!r}, which numpy takes for an argument of its own')
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f'{folder} exists and is not an empty folder; move it away or name another one')

    dataloader = _build_dataloader(cfg, batch_size)
    check_classes(dataloader.dataset, cfg.model.head.num_classes)
    infos = [dataloader.dataset.get_data_info(index) for index in range(len(dataloader.dataset))]
    paths = [str(info['img_path']) for info in infos]
    names = make_names(paths)
    temporary = folder.with_name(f'.{folder.name}.{os.getpid()}')
    try:
        (temporary / 'inputs').mkdir(parents=True)
        images: list[ListedImage] = []
        batches = _iterate_batches(dataloader, None if dtype == 'uint8' else _build_preprocessor(cfg), paths)
        for number, inputs in enumerate(track(batches, 'writing the inputs', total=len(dataloader))):
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
                _check_space(temporary, array.nbytes * len(dataloader))
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
    return WrittenInputs(len(images), len(dataloader), shape)


def _build_dataloader(cfg: Config, batch_size: int) -> Any:
    if cfg.get('test_dataloader') is None:
        raise ValueError('the config must have a test_dataloader, whose images are written')
    loader = copy.deepcopy(cfg.test_dataloader)
    loader.update(batch_size=batch_size, drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False))
    loader.persistent_workers = False  # there is one pass
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        dataloader = Runner.build_dataloader(loader, seed=0)
    if not len(dataloader.dataset):
        raise ValueError('test_dataloader holds no image')
    return dataloader


def _build_preprocessor(cfg: Config) -> nn.Module:
    """The model's own preprocessing, without the model."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        return MODELS.build({'type': 'mmpretrain.ClsDataPreprocessor', **preprocessor}).eval()


def _iterate_batches(dataloader: Any, preprocessor: nn.Module | None, paths: list[str]) -> Iterator[Tensor]:
    """Inputs (N, C, H, W), checked to be of one size and of the images of ``paths``, in their order."""
    shape: torch.Size | None = None
    position = 0
    try:
        for batch in dataloader:
            for sample, image in zip(batch['data_samples'], batch['inputs'], strict=True):
                shape = shape or image.shape
                if image.shape != shape:
                    raise ValueError(
                        f'all inputs must have one size, got {tuple(image.shape)} for {paths[position]} after '
                        f'{tuple(shape)}; end the test pipeline with a resize or crop to a fixed size'
                    )
                # a data set may put another image in the place of one that it can't read
                if sample.get('img_path', paths[position]) != paths[position]:
                    raise ValueError(f'{paths[position]} can not be read')
                position += 1
            yield preprocessor(batch)['inputs'] if preprocessor else torch.stack(list(batch['inputs']))
    except Exception as error:
        if 'DataLoader worker' not in str(error):
            raise
        # the worker's whole traceback; its last line is the reason
        raise ValueError(f'an image can not be read: {str(error).strip().splitlines()[-1]}') from error


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f'the inputs take {needed / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free; choose another '
            'disk, or --dtype float16 or uint8, which take a half or a quarter'
        )
