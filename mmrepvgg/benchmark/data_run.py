"""A benchmark of a config's training data: the pipeline, the workers, the training step, and what bounds them."""

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from ..data.faster_steps import use_faster_steps, use_own_reading
from ..data.wrappers import get_test_pipeline, iterate_datasets
from ..measures.timing import Spread
from .data_photos import find_dataset
from .data_pipelines import Part, time_parts
from .data_step import time_step
from .data_workers import Loading, list_numbers, time_workers
from .machine import describe_machine, describe_versions

_NUM_IMAGES = 64
# The loader must be so much faster than the step that a slow moment of it does not stop the step.
_MARGIN = 1.2
# Without workers the step waits for each batch: for a twentieth of its time at most.
_MARGIN_IN_LINE = 20
_PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmcv-lite', 'mmpretrain', 'opencv-python', 'pillow', 'numpy')


@dataclass(frozen=True)
class DataReport:
    """A whole run.

    Attributes:
        source: What images were read, in words.
        parts: The pipelines and their parts in one process, the training pipeline first.
        loadings: The data loader by number of workers.
        step: Images per second of the training step.
        batch_size: Images in a batch of loader and step.
        device: Where the step ran: a GPU, or the CPU and its threads.
        machine, versions: Descriptions of machine and software.
    """

    source: str
    parts: tuple[Part, ...]
    loadings: tuple[Loading, ...]
    step: Spread
    batch_size: int
    device: str
    machine: dict[str, Any]
    versions: dict[str, str]

    @property
    def enough(self) -> Loading | None:
        """The least number of workers that keeps up with the step; None if no measured one does."""
        for loading in self.loadings:
            margin = _MARGIN if loading.num_workers else _MARGIN_IN_LINE
            if loading.speed >= margin * self.step.median:
                return loading
        return None

    @property
    def cores_needed(self) -> float:
        """Cores that the pipeline needs to keep up with the step."""
        return _MARGIN * self.step.median / self.parts[0].speed.median


def benchmark_data(
    cfg: Config,
    *,
    workers: Sequence[int] | None = None,
    batch_size: int | None = None,
    repeats: int = 10,
    seconds: float = 5,
) -> DataReport:
    """Time the training data of a config, and its training step.

    Args:
        cfg: The config. If its images are not there, others are generated.
        workers: Numbers of workers to time. Default: 0, 1, 2, 4, ... and the number of cores.
        batch_size: Images in a batch. Default: the config's on a GPU, at most 8 on a CPU.
        repeats: Rounds of the pipeline, and steps.
        seconds: Seconds for each number of workers.

    Raises:
        ValueError: If the config has no training data, or if that has no image files.
        UnreadableImageError: If an image is damaged. The message names it.
    """
    cfg = copy.deepcopy(cfg)
    has_gpu = torch.cuda.is_available()
    machine = describe_machine()
    batch_size = batch_size or (cfg.train_dataloader.batch_size if has_gpu else min(8, cfg.train_dataloader.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        settings, source = find_dataset(cfg, Path(folder))
        cfg.train_dataloader.dataset = settings
        use_own_reading(cfg)
        use_faster_steps(cfg)
        settings = cfg.train_dataloader.dataset
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            dataset: Any = DATASETS.build(settings)
        if 'img_path' not in dataset.get_data_info(0):
            raise ValueError(f'the training data must be image files, got {settings["type"]}, which has none')
        pipelines = {'training pipeline': next(iterate_datasets(settings))['pipeline']}
        if cfg.get('test_dataloader'):
            pipelines['test pipeline'] = get_test_pipeline(cfg)
        with _one_thread():
            parts = time_parts(_draw(dataset), pipelines, repeats)
            loadings = time_workers(dataset, batch_size, sorted(workers or list_numbers()), seconds)
            batch = pseudo_collate([dataset[index % len(dataset)] for index in range(batch_size)])
        step = time_step(cfg, batch, repeats)
    device = machine['gpu'] or f'CPU, {torch.get_num_threads()} thread(s)'
    machine['load_average_at_the_end'] = list(os.getloadavg())
    versions = describe_versions(_PACKAGES)
    return DataReport(source, tuple(parts), tuple(loadings), step, batch_size, device, machine, versions)


def _draw(dataset: Any) -> list[dict[str, Any]]:
    """What is known of a few images, drawn without repetition by a fixed seed."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    return [dataset.get_data_info(index) for index in islice(order, _NUM_IMAGES)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker: neither PyTorch nor OpenCV starts threads."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
