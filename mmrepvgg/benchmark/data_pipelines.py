"""A training pipeline and its parts, timed in one process, in turns with mmpretrain's steps."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from ..data.faster_steps import FASTER
from ..measures.timing import Spread, summarise, time_interleaved
from ..models.config_types import get_type_name, iterate_parts

_RESIZING = [faster.__name__ for faster in FASTER.values()]
_REPLACED = ['LoadImageFromFile', *_RESIZING]


Process = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True)
class Part:
    """A part of the work, alone.

    Attributes:
        title: What is done with each image.
        num_images: Images in a round.
        seconds: Seconds of each round.
        plain_seconds: Seconds of the same rounds with mmpretrain's steps; empty where there is no such comparison.
    """

    title: str
    num_images: int
    seconds: tuple[float, ...]
    plain_seconds: tuple[float, ...] = ()

    @property
    def speed(self) -> Spread:
        """Images per second."""
        return summarise(self.seconds).to_rate(self.num_images)

    @property
    def plain_speed(self) -> Spread | None:
        """Images per second with mmpretrain's steps."""
        return summarise(self.plain_seconds).to_rate(self.num_images) if self.plain_seconds else None

    @property
    def ratio(self) -> Spread | None:
        """How many times as fast as with mmpretrain's steps it is, round by round."""
        pairs = list(zip(self.seconds, self.plain_seconds, strict=False))
        return summarise([plain / own for own, plain in pairs]) if pairs else None


def time_parts(
    infos: Sequence[Mapping[str, Any]], pipelines: Mapping[str, Sequence[Mapping[str, Any]]], repeats: int
) -> list[Part]:
    """Time pipelines, in turns with the same ones of mmpretrain's steps, and what the first one begins with.

    Args:
        infos: What the data set knows of each image, ``img_path`` among it.
        pipelines: Settings of the steps of each pipeline, by its title. The first step reads the image.
        repeats: Rounds.

    Returns:
        list[Part]: The pipelines, then reading and decoding, then reading alone.

    Raises:
        UnreadableImageError: If an image is damaged. The message names it.
    """
    own = {title: _build(pipeline) for title, pipeline in pipelines.items()}
    plain = {title: _build(name_plain_steps(pipeline)) for title, pipeline in pipelines.items()}
    reading = next(iter(pipelines.values()))[0]
    beginnings: dict[str, Process] = {
        'files read and decoded': _build([reading]),
        'files read': lambda info: fileio.get(info['img_path'], reading.get('backend_args')),
    }
    for info in infos:  # this package's steps name a damaged image
        beginnings['files read and decoded'](dict(info))

    def make_round(process: Process) -> Callable[[], None]:
        def run() -> None:
            np.random.seed(0)  # the same crops for all
            for info in infos:
                process(dict(info))

        return run

    runs = [make_round(process) for process in (*own.values(), *beginnings.values(), *plain.values())]
    seconds = [
        tuple(taken for taken in rounds if taken is not None) for rounds in time_interleaved(runs, repeats, warm_up=1)
    ]
    titles = [*own, *beginnings]
    plain_seconds = dict(zip(plain, seconds[len(titles) :], strict=True))
    return [
        Part(title, len(infos), rounds, plain_seconds.get(title, ()))
        for title, rounds in zip(titles, seconds[: len(titles)], strict=True)
    ]


def name_plain_steps(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline with the steps of mmpretrain and mmcv in the place of this package's."""
    plain = [copy.deepcopy(dict(step)) for step in pipeline]
    for step in iterate_parts(plain):
        name = get_type_name(step['type'])
        if step['type'] == f'mmrepvgg.{name}' and name in _REPLACED:
            step['type'] = f'mmpretrain.{name}'
            for own in ('max_pixels', 'background'):
                step.pop(own, None)
            if name in _RESIZING:
                step.setdefault('backend', 'pillow')
    return plain


def _build(pipeline: Sequence[Mapping[str, Any]]) -> Compose:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(dict(step)) for step in pipeline])
