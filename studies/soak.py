"""Test and predict again and again in one process, and show whether its memory grows.

example: python tools/soak.py --minutes 60
"""

import argparse
import gc
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmrepvgg.commands.arguments import positive_float, positive_int
from mmrepvgg.progress import track
from mmrepvgg.tables import format_table

CONFIG = 'repvgg-a0_digits'
FORMATS = ('.onnx', '.xml')
# Of the rounds, as a share: the first ones fill caches.
WARM_UP = 0.1


@dataclass(frozen=True)
class Footprint:
    """What a process holds.

    Attributes:
        memory: Bytes that are in memory.
        files: Number of open files on disks. Pipes of data loaders' processes, which end a little later, do not count.
        threads: Number of threads.
    """

    memory: int
    files: int
    threads: int


@dataclass(frozen=True)
class Growth:
    """How much one thing grew.

    Attributes:
        before: Median over the first tenth of the rounds after the warm-up.
        after: Median over the last tenth of the rounds.
    """

    before: float
    after: float

    @property
    def share(self) -> float:
        if self.before == 0:
            return math.inf if self.after else 0.0
        return self.after / self.before - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=positive_float, default=60.0, help='time of the rounds (default: 60)')
    length.add_argument('--rounds', type=positive_int, help='number of rounds, instead of a time')
    parser.add_argument('--images', type=positive_int, default=360, help='images of a round (default: 360, all)')
    parser.add_argument('--limit', type=positive_float, default=5.0, help='growth that is an error, in percent')


def run(args: argparse.Namespace) -> None:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where the config looks for its data
        try:
            tasks = make_tasks(args.images)
            start = time.monotonic()
            footprints = soak(tasks, 60 * args.minutes, args.rounds)
            minutes = (time.monotonic() - start) / 60
        finally:
            os.chdir(before)
    growths = compare(footprints)
    print(render(growths))
    print(f'{len(footprints)} rounds in {minutes:.1f} minutes; a round: {", ".join(tasks)}, {args.images} images each')
    if grown := [name for name, growth in growths.items() if growth.share > args.limit / 100]:
        raise RuntimeError(f'more than {args.limit:g}% growth: {", ".join(grown)}')


def make_tasks(num_images: int) -> dict[str, Callable[[], object]]:
    """Make data and files in the present folder, and functions that use them."""
    import torch

    from mmrepvgg import Predictor, build_classifier, evaluate, export_model, load_config, prepare_digits
    from mmrepvgg.runtimes.classifier import make_exported_config

    data = Path('data/digits')
    prepare_digits(data)
    images = sorted(data.glob('val/*/*.png'))
    for image in images[num_images:]:
        image.unlink()
    images = images[:num_images]
    weights = Path('train.pth')
    torch.save(build_classifier(load_config(CONFIG).model).state_dict(), weights)
    files = [weights, *(weights.with_suffix(suffix) for suffix in FORMATS)]
    for file in files[1:]:
        export_model(load_config(CONFIG), weights, file)

    def test(file: Path) -> None:
        cfg = load_config(CONFIG)
        cfg.log_level = 'ERROR'
        exported = file != weights
        evaluate(cfg, make_exported_config(cfg, file) if exported else file, 'work_dir', metrics=['accuracy'])

    def predict(file: Path) -> None:
        Predictor(load_config(CONFIG), file).predict(images)

    kept = {file: Predictor(load_config(CONFIG), file) for file in files}
    tasks: dict[str, Callable[[], object]] = {}
    for file in files:
        tasks[f'test {file.suffix}'] = partial(test, file)
        tasks[f'predict {file.suffix}'] = partial(predict, file)
        tasks[f'predict {file.suffix} with one Predictor'] = partial(kept[file].predict, images)
    return tasks


def soak(tasks: Mapping[str, Callable[[], object]], seconds: float, rounds: int | None) -> list[Footprint]:
    """Call all tasks, round after round, and measure after each round."""
    footprints: list[Footprint] = []
    end = time.monotonic() + seconds

    def more() -> Any:
        while len(footprints) < rounds if rounds else time.monotonic() < end:
            yield None

    for _ in track(more(), 'rounds', rounds):
        for task in tasks.values():
            task()
        gc.collect()
        footprints.append(measure())
    return footprints


def measure() -> Footprint:
    """What this process holds now, from Linux's /proc."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    files = sum(map(_is_on_disk, os.listdir('/proc/self/fd')))
    return Footprint(pages * os.sysconf('SC_PAGE_SIZE'), files, len(os.listdir('/proc/self/task')))


def _is_on_disk(descriptor: str) -> bool:
    try:
        target = os.readlink(f'/proc/self/fd/{descriptor}')
    except FileNotFoundError:  # closed meanwhile
        return False
    return target.startswith('/') and not target.startswith(('/dev/', '/proc/'))


def compare(footprints: list[Footprint]) -> dict[str, Growth]:
    """Compare the last rounds with the first ones after the warm-up."""
    measured = footprints[int(len(footprints) * WARM_UP) :]
    tenth = max(1, len(measured) // 10)

    def grow(name: str) -> Growth:
        values = [getattr(footprint, name) for footprint in measured]
        return Growth(statistics.median(values[:tenth]), statistics.median(values[-tenth:]))

    return {'memory, MB': grow('memory'), 'open files': grow('files'), 'threads': grow('threads')}


def render(growths: Mapping[str, Growth]) -> str:
    rows = []
    for name, growth in growths.items():
        unit = 1e6 if 'MB' in name else 1
        rows.append((name, f'{growth.before / unit:.0f}', f'{growth.after / unit:.0f}', f'{growth.share:+.1%}'))
    return format_table(('', 'first rounds', 'last rounds', 'growth'), rows)
