"""A training pipeline and its parts, timed in one process, in turns with mmpretrain's steps."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from ..data.faster_steps import FASTER
from ..measures.timing import Spread, summarise, time_interleaved
from ..models.config_types import get_type_name, iterate_parts

_OWN = {faster.__name__ for _, faster in FASTER.values()}


@dataclass(frozen=True)
class Part:
    """A part of the work, alone.

    Attributes:
        title: What is done with each image.
        num_images: Images in a round.
        seconds: Seconds of each round.
    """

    title: str
    num_images: int
    seconds: tuple[float, ...]

    @property
    def speed(self) -> Spread:
        """Images per second."""
        spread = summarise(self.seconds)
        return Spread(*(self.num_images / taken for taken in (spread.high, spread.median, spread.low)))

    def divide(self, other: 'Part') -> Spread:
        """How many times as fast as ``other`` it is, round by round."""
        return summarise([b / a for a, b in zip(self.seconds, other.seconds, strict=True)])


def time_parts(infos: Sequence[Mapping[str, Any]], pipeline: Sequence[Mapping[str, Any]], repeats: int) -> list[Part]:
    """Time a pipeline, its reading step alone, the files alone, and the same pipeline of mmpretrain's steps.

    Args:
        infos: What the data set knows of each image, ``img_path`` among it.
        pipeline: Settings of the steps. The first one reads the image.
        repeats: Rounds.

    Returns:
        list[Part]: The whole pipeline, the same of mmpretrain's steps, reading and decoding, reading alone.

    Raises:
        UnreadableImageError: If an image is damaged. The message names it.
    """
    parts: dict[str, Callable[[Mapping[str, Any]], object]] = {
        'whole pipeline': _build(pipeline),
        "the same with mmpretrain's steps": _build(name_plain_steps(pipeline)),
        'files read and decoded': _build(pipeline[:1]),
        'files read': lambda info: Path(info['img_path']).read_bytes(),
    }

    for info in infos:  # this package's steps name a damaged image
        parts['whole pipeline'](dict(info))

    def make_round(process: Callable[[Mapping[str, Any]], object]) -> Callable[[], None]:
        def run() -> None:
            np.random.seed(0)  # the same crops for all
            for info in infos:
                process(dict(info))

        return run

    times = time_interleaved([make_round(process) for process in parts.values()], repeats, warm_up=1)
    return [
        Part(title, len(infos), tuple(taken for taken in seconds if taken is not None))
        for title, seconds in zip(parts, times, strict=True)
    ]


def name_plain_steps(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline with the steps of mmpretrain and mmcv in the place of this package's."""
    plain = [copy.deepcopy(dict(step)) for step in pipeline]
    for step in iterate_parts(plain):
        name = get_type_name(step['type'])
        if name in _OWN and step['type'] == f'mmrepvgg.{name}':
            step['type'] = f'mmpretrain.{name}'
            original = next(kind for kind, (_, faster) in FASTER.items() if faster.__name__ == name)
            settings, _ = FASTER[original]
            step |= {key: step.get(key, value) for key, value in settings.items()}
    return plain


def _build(pipeline: Sequence[Mapping[str, Any]]) -> Compose:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(dict(step)) for step in pipeline])
