"""One test run through mmengine's Runner."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from torch import Tensor

from ..checkpoints.formats import read_weights
from ..checkpoints.loading import load_weights
from ..checkpoints.writing import replacing, require_writable
from ..data.classes import check_classes, get_trained_classes, require_labels, require_single_label
from ..data.faster_steps import use_own_reading
from ..data.layout import get_num_classes
from ..data.transparency import warn_of_transparent_data
from ..models.config_types import get_type_name, is_classifier, require_model
from .logs import closing_logs
from .metrics import PredictionRecord, check_topk, make_evaluator, needs_labels
from .processes import prepare_test_processes
from .runners import TestRunner


@closing_logs()
def evaluate(
    cfg: Config,
    checkpoint: str | Path | Mapping[str, Any],
    work_dir: str,
    *,
    metrics: Sequence[str] = (),
    out: str | Path | None = None,
    launcher: str = 'none',
) -> dict[str, Any]:
    """Test a checkpoint, which must fit the model of ``cfg`` and its form exactly.

    Args:
        cfg: The config. Its data must exist (:func:`mmrepvgg.data.layout.check_data` looks for it).
        checkpoint: The weights; or the config of a classifier that has weights of its own, such as an exported file.
            This classifier then takes the place of the model of ``cfg``.
        work_dir: Folder for the logs.
        metrics: Names of metrics (keys of ``mmrepvgg.engine.metric_names.METRICS``). Default: the evaluator of the
            config.
        out: JSON file to write, with the metrics and the prediction of each image.
        launcher: Way in which the processes were started: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``. Each
            image is tested once.

    Returns:
        The metrics by name, in every process.

    Raises:
        CheckpointError: If the checkpoint can't be read safely, or does not fit.
        CheckpointFormError: If the checkpoint is in the other form than the config.
        DataError: If the data has other classes than the model, or no labels that the metrics need.
        ValueError: If ``metrics`` or ``out`` are given for a model that is no classifier, or that gives an image
            several labels; or if this process was not started as ``launcher`` says.
        OSError: If ``out`` can't be written.
    """
    require_writable(out)
    require_model(cfg)
    if metrics or out is not None:
        if not is_classifier(cfg.model):
            raise ValueError(
                f'`metrics` and `out` are for classifiers, got a config of {get_type_name(cfg.model.type)}; leave them '
                'out, and its own test_evaluator is used'
            )
        require_single_label(cfg)
    num_classes = get_num_classes(cfg)
    weights = None if isinstance(checkpoint, Mapping) else read_weights(checkpoint)
    cfg.work_dir = work_dir
    cfg.load_from, cfg.resume = None, False
    if num_classes is not None:
        if metrics:
            cfg.test_evaluator = make_evaluator(metrics, num_classes)
        check_topk(cfg, 'test_evaluator', num_classes)
    if isinstance(checkpoint, Mapping):
        cfg.model = dict(checkpoint)
    if out is not None:
        evaluator = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluator, dict(type='mmrepvgg.PredictionRecord')]
    if cfg.get('optim_wrapper') is None:  # the Runner wants all parts of a training or none
        cfg.train_dataloader = cfg.train_cfg = None
    use_own_reading(cfg)
    prepare_test_processes(cfg, launcher)

    runner = TestRunner.from_cfg(cfg)
    model = runner.model
    # The Runner would load what fits, and only log what does not.
    if weights is not None:
        load_weights(model, weights)
    dataset = runner.test_loop.dataloader.dataset
    if needs_labels(cfg, 'test_evaluator'):
        require_labels(dataset, 'test')
    warn_of_transparent_data(dataset, cfg.test_dataloader.dataset)
    if num_classes is not None:
        meta = weights.meta if weights is not None else dict(dataset_meta=getattr(model, '_dataset_meta', None))
        check_classes(dataset, num_classes, get_trained_classes(meta))
    results = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in runner.test().items()}
    if out is not None and is_main_process():
        records = [m for m in runner.test_loop.evaluator.metrics if isinstance(m, PredictionRecord)]
        content = dict(metrics=results, predictions=records[0].predictions)
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + '\n')
    return results
