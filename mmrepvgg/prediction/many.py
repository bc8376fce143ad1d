"""Predict more images than one process can, by Ray Data: on all cores of a machine, or on a cluster."""

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..checkpoints.writing import require_writable
from ..data.images import list_images
from ..data.transparency import warn_of_transparency
from ..data.wrappers import get_test_pipeline
from ..progress import track
from ..runtimes.classifier import load_classifier
from ..runtimes.quiet import quiet_stderr
from ..runtimes.table import is_exported
from .parts import SETTINGS, count_rows, describe_settings, prepare_folder, write_part
from .predictor import Predictor

# Ray reads these when it is imported: it reports nothing to its makers, and its processes log only what ends them.
os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
os.environ.setdefault('RAY_BACKEND_LOG_LEVEL', 'fatal')

try:
    import ray
    import ray.data
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('many images are predicted by Ray: pip install "mmrepvgg[ray]"') from error

_CPUS_PER_WORKER = 4
_MAX_BLOCKS = 4096
_RETRIES = 3
_ADVICE = 'the Parquet files that are written stay, and the same call goes on'


class WorkerError(RuntimeError):
    """A worker of Ray failed again and again, or can't do its work."""


@dataclass(frozen=True)
class ManyPredictions:
    """A folder of predictions.

    Attributes:
        folder: The folder.
        num_images: Number of images.
        num_unreadable: Number of images that could not be read.
        num_parts: Number of Parquet files.
        num_kept: Number of Parquet files that were there already.
    """

    folder: Path
    num_images: int
    num_unreadable: int
    num_parts: int
    num_kept: int


def predict_many(
    cfg: Config,
    weights: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    workers: int | None = None,
    cluster: bool = False,
    topk: int = 5,
    batch_size: int = 16,
    part_size: int = 1024,
) -> ManyPredictions:
    """Predict images in several processes, and write the predictions into Parquet files.

    The sorted list of images is cut into parts. Each worker predicts whole parts, with a :class:`Predictor` of its own.
    A part is written when it is complete, as ``out/part-000000.parquet`` and so on. A call with the same arguments
    predicts only the parts that are missing.

    Args:
        cfg: The config. Its test pipeline reads the images.
        weights: A checkpoint in either form, or a file of ``export_model``. All machines must have it at this path.
        images: Files and folders, at the same paths on all machines. The files name them as they are given here.
        out: Folder for the Parquet files, on storage that all machines share.
        workers: Number of processes that predict. Default: one for each GPU of a checkpoint's, otherwise one for four
            CPUs. They share the CPUs.
        cluster: Whether the workers are those of the Ray cluster to which this machine belongs. Default: Ray is started
            on this machine alone, and stopped at the end.
        topk: Largest number of classes for an image.
        batch_size: Largest number of images that a model takes at once.
        part_size: Number of images in a part. A worker keeps the predictions of one part in memory.

    Raises:
        FileExistsError: If ``out`` holds predictions of other weights, images or settings.
        ValueError: If a number is below 1, if there are more ``workers`` than CPUs, if there is no image, or if no
            Ray ``cluster`` runs here.
        CheckpointError: If ``weights`` can't be read safely, or does not fit the config.
        WorkerError: If a worker fails. The parts that are written stay.
        OSError: If ``out`` can't be written.
    """
    numbers = dict(topk=topk, batch_size=batch_size, part_size=part_size)
    for name, number in dict(workers=1 if workers is None else workers, **numbers).items():
        if number < 1:
            raise ValueError(f'`{name}` must be at least 1, got {number}')
    folder, weights = Path(out).absolute(), Path(weights).absolute()
    require_writable(folder / SETTINGS)
    files = [file for file, _ in list_images(images, without=folder)]
    # here, since what is wrong with it would come from a worker as a long tale
    load_classifier(cfg, weights)
    warn_of_transparency([str(file) for file in files], get_test_pipeline(cfg))
    prepare_folder(folder, describe_settings(cfg, weights, files, **numbers))

    parts: list[dict[str, Any]] = [
        dict(
            path=str(folder / f'part-{start // part_size:06d}.parquet'),
            # as bytes, since names of files need not be UTF-8
            images=b'\0'.join(map(os.fsencode, files[start : start + part_size])),
        )
        for start in range(0, len(files), part_size)
    ]
    todo = [part for part in parts if not os.path.exists(part['path'])]
    if todo:
        with _connected(cluster):
            options = dict(root=Path.cwd(), cfg=cfg, weights=weights, topk=topk, batch_size=batch_size)
            for _ in track(_run(todo, workers, not is_exported(weights), options), 'predicting', total=len(todo)):
                pass
    counts = [count_rows(Path(part['path'])) for part in parts]
    return ManyPredictions(
        Path(out), len(files), sum(unreadable for _, unreadable in counts), len(parts), len(parts) - len(todo)
    )


@contextmanager
def _connected(cluster: bool) -> Iterator[None]:
    """Ray on this machine, or a cluster. A Ray that this process uses already is left as it is."""
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix='ray-', ignore_cleanup_errors=True) as folder:  # sockets need a short name
        local: dict[str, Any] = dict(address='local', include_dashboard=False, _temp_dir=folder)
        previous = logging.root.manager.disable
        logging.disable(logging.ERROR)  # Ray logs much, and long tales of errors that it raises, too
        try:
            with quiet_stderr():
                ray.init(
                    logging_level=logging.ERROR, log_to_driver=False, **(dict(address='auto') if cluster else local)
                )
            yield
        except ConnectionError as error:
            raise ValueError(
                'no Ray cluster runs on this machine; start it (ray start --head), or leave out `cluster`'
            ) from error
        except ray.exceptions.RayError as error:
            raise WorkerError(
                f'workers died {_RETRIES + 1} times with the same images, by a crash or for lack of memory, of which '
                f'fewer `workers` need less ({type(error).__name__}); {_ADVICE}'
            ) from error
        finally:
            ray.shutdown()
            logging.disable(previous)


def _run(parts: list[dict], workers: int | None, can_use_gpus: bool, options: dict[str, Any]) -> Iterator[Any]:
    """Let the workers predict parts, and yield once a part."""
    cpus = [int(node['Resources'].get('CPU', 0)) for node in ray.nodes() if node['Alive']]
    gpus = ray.cluster_resources().get('GPU', 0) if can_use_gpus else 0
    if workers is None:
        workers = max(1, int(gpus) or sum(cpus) // _CPUS_PER_WORKER)
    if workers > sum(cpus):
        raise ValueError(f'`workers` must be at most {sum(cpus)}, the number of CPUs that Ray has, got {workers}')
    workers = min(workers, len(parts))
    # a worker is on one machine
    threads = max(1, min(sum(cpus) // workers, min(filter(None, cpus))))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # few parts in a block, so that no worker waits for another
    data = ray.data.from_items(parts, override_num_blocks=min(len(parts), _MAX_BLOCKS))
    worker: Any = _Worker  # Ray's types have no place for a class
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '`ray_remote_args` is deprecated')  # hence the limit of setup.py
        done = data.map(
            worker,
            fn_constructor_kwargs=dict(options, num_threads=threads),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=threads,
            num_gpus=min(1.0, math.floor(gpus / workers * 10_000) / 10_000),
            # by default, images that kill a worker would do so for ever
            max_restarts=_RETRIES,
            max_task_retries=_RETRIES,
        )
    for row in done.iter_rows():
        if row['error']:
            raise WorkerError(f'a worker could not go on: {row["error"]}; {_ADVICE}')
        yield row


class _Worker:
    """Predicts parts, in a process of its own. What goes wrong is in its answer: Ray would tell a long tale of it."""

    def __init__(self, root: Path, **options: Any):
        self._root = root
        self._options = options
        self._predictor: Predictor | None = None

    def __call__(self, part: dict[str, Any]) -> dict[str, str]:
        try:
            self._predict(Path(part['path']), [Path(os.fsdecode(image)) for image in part['images'].split(b'\0')])
        except Exception as error:
            return dict(error=f'{type(error).__name__}: {" ".join(str(error).split())}')
        return dict(error='')

    def _predict(self, path: Path, images: list[Path]) -> None:
        if not path.with_name(SETTINGS).exists():
            raise FileNotFoundError(f'{path.parent} is not on this machine; `out` must be on storage that all share')
        if self._predictor is None:
            self._predictor = Predictor(**self._options)
        if not all(image.is_absolute() for image in images):
            os.chdir(self._root)
        write_part(path, self._predictor.predict(images))
