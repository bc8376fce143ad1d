"""One test run through mmengine's Runner."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import Tensor

from ..checkpoints.loading import load_weights
from ..checkpoints.reading import read_checkpoint
from ..checkpoints.writing import replacing
from ..data.layout import check_classes
from .distributed import prepare_launcher
from .metrics import PredictionRecord, make_evaluator


def evaluate(
    cfg: Config,
    checkpoint: str | Path,
    work_dir: str,
    *,
    exported: bool = False,
    metrics: Sequence[str] = (),
    out: str | Path | None = None,
    launcher: str = 'none',
) -> dict[str, Any]:
    """Test ``checkpoint``, which must fit the model of ``cfg`` and its form exactly, or an exported file.

    Args:
        cfg: The config. Its data is expected to be there (:func:`mmrepvgg.data.layout.check_data`).
        checkpoint: The weights.
        work_dir: Where the logs go.
        exported: ``checkpoint`` is a file of tools/export.py, which takes the place of the model of ``cfg``.
        metrics: Names from :data:`mmrepvgg.engine.metrics.METRICS`; none for the config's own evaluator.
        out: A JSON file for the metrics and the prediction for each image.
        launcher: How the processes were started.

    Returns:
        The metrics by name.

    Raises:
        CheckpointError: If the checkpoint can't be read safely, or does not fit.
        CheckpointFormError: If the checkpoint is in the other form than the config.
        ValueError: If ``metrics``, ``out`` or an exported file are given for a model that is no classifier; if an
            exported file does not fit, or is to be tested in several processes; if the data has other classes.
    """
    is_classifier = 'head' in cfg.model
    if (metrics or out is not None) and not is_classifier:
        raise ValueError(
            f'--metrics and --out are for classifiers, got a config of {cfg.model.type}; leave them out, and its own '
            'test_evaluator is used'
        )
    if exported and not is_classifier:
        raise ValueError(f'an exported file is a classifier, got a config of {cfg.model.type}')
    num_classes = cfg.model.head.num_classes if is_classifier else None
    if exported and launcher != 'none':
        raise ValueError(f'an exported file is tested in one process: leave out --launcher, got {launcher}')
    weights = None if exported else read_checkpoint(checkpoint)
    cfg.work_dir = work_dir
    cfg.load_from, cfg.resume = None, False
    if metrics and num_classes is not None:
        cfg.test_evaluator = make_evaluator(metrics, num_classes)
    if exported:
        # by its registered name: this folder imports nothing of deploy/
        cfg.model = dict(type='mmrepvgg.ExportedClassifier', path=str(checkpoint), num_classes=num_classes)
    if out is not None:
        evaluator = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluator, dict(type='mmrepvgg.PredictionRecord')]
    prepare_launcher(cfg, launcher)

    runner = Runner.from_cfg(cfg)
    # Not by the Runner, which loads what fits and only logs what does not.
    if weights is not None:
        load_weights(getattr(runner.model, 'module', runner.model), weights)
    if num_classes is not None:
        model = getattr(runner.model, 'module', runner.model)
        known = weights.meta.get('dataset_meta') if weights is not None else model._dataset_meta
        check_classes(runner.test_loop.dataloader.dataset, num_classes, (known or {}).get('classes'))
    results = {name: _to_plain(value) for name, value in runner.test().items()}
    if out is not None and is_main_process():
        records = [m for m in runner.test_loop.evaluator.metrics if isinstance(m, PredictionRecord)]
        _write_json(out, dict(metrics=results, predictions=records[0].predictions))
    return results


def _write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + '\n')


def _to_plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
