"""Metrics by name, and a record of the predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric

from ..models.config_types import get_type_name
from .metric_names import METRICS


def make_evaluator(names: Sequence[str], num_classes: int) -> list[dict[str, Any]]:
    """Configs of mmpretrain's metrics for ``names`` (keys of :data:`mmrepvgg.engine.metric_names.METRICS`).

    Accuracy is top-1 and top-5, or top-1 alone if there are fewer than 5 classes.
    """
    evaluator: list[dict[str, Any]] = []
    items = tuple(dict.fromkeys(METRICS[name][1] for name in names if METRICS[name][1]))
    for metric in dict.fromkeys(METRICS[name][0] for name in names):
        options: dict[str, Any] = {
            'Accuracy': dict(topk=(1, 5) if num_classes >= 5 else (1,)),
            'SingleLabelMetric': dict(items=items, num_classes=num_classes),
            'ConfusionMatrix': dict(num_classes=num_classes),
        }
        evaluator.append(dict(type=f'mmpretrain.{metric}', **options[metric]))
    return evaluator


def check_topk(cfg: Config, evaluator: str, num_classes: int) -> None:
    """Check that a top-k accuracy has at least k classes. mmpretrain fails only after all images were seen.

    Args:
        cfg: The config.
        evaluator: ``'val_evaluator'`` or ``'test_evaluator'``.
        num_classes: Number of classes of the model.

    Raises:
        ValueError: If a k is larger than ``num_classes``.
    """
    for metric in _list_metrics(cfg, evaluator):
        topk = metric.get('topk', 1) if get_type_name(metric.get('type')) == 'Accuracy' else 1
        if max([topk] if isinstance(topk, int) else topk) > num_classes:
            raise ValueError(
                f'topk of {evaluator} must be at most the number of classes, {num_classes}, got {topk}; set '
                f'`{evaluator}.topk=1`'
            )


def needs_labels(cfg: Config, evaluator: str) -> bool:
    """Whether a metric of ``'val_evaluator'`` or ``'test_evaluator'`` is one that compares predictions with labels."""
    known = {metric for metric, _ in METRICS.values()}
    return any(get_type_name(metric.get('type')) in known for metric in _list_metrics(cfg, evaluator))


def _list_metrics(cfg: Config, evaluator: str) -> Sequence[Mapping[str, Any]]:
    metrics = cfg.get(evaluator) or []
    return [metrics] if isinstance(metrics, Mapping) else metrics


class PredictionRecord(BaseMetric):
    """Keeps the prediction for each image in ``predictions``, in the order of the data set."""

    default_prefix = 'record'  # of no metric, but mmengine would warn without one

    def __init__(self, collect_device: str = 'cpu'):
        super().__init__(collect_device)
        self.predictions: list[dict[str, Any]] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            score, label = sample['pred_score'].max(0)
            self.results.append(
                dict(
                    image=sample.get('img_path'),
                    label=sample['gt_label'].item() if 'gt_label' in sample else None,
                    prediction=label.item(),
                    score=score.item(),
                )
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        self.predictions = results
        return {}
