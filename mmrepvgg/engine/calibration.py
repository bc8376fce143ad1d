"""The statistics of batch norms that are inserted into a deployed model."""

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from ..models.inserted_norm import InsertedNormBlock
from .sampling import iterate_training_inputs, observe_inputs


class CalibrateInsertedNormsHook(Hook):
    """Before fine-tuning with ``deploy_norm``, measure the inserted norms' statistics on training batches.

    Without this hook training would not start from the function of the converted model. In train mode a norm
    standardises its input by the batch; only a gain and a bias that equal the input's deviation and mean undo that.
    Norms that have seen a batch already, as in a resumed run, stay as they are.

    Args:
        num_batches: Largest number of training batches to measure on, in each process.
    """

    def __init__(self, num_batches: int = 100):
        if num_batches < 1:
            raise ValueError(f'num_batches must be at least 1, got {num_batches}')
        self.num_batches = num_batches

    # mmengine calls it after the checkpoint is loaded.
    def before_train(self, runner: Runner) -> None:
        model = getattr(runner.model, 'module', runner.model)
        norms = _find_norms(model)
        if not norms:
            raise ValueError(
                'the model has no inserted batch norm to calibrate; give the backbone deploy=True and '
                "deploy_norm=dict(type='BN'), or leave out CalibrateInsertedNormsHook"
            )
        if any(norm.num_batches_tracked > 0 for norm in norms):
            return

        num_batches = calibrate_inserted_norms(model, iterate_training_inputs(runner, self.num_batches))
        print_log(f'calibrated {len(norms)} inserted batch norms on {num_batches} training batches', 'current')


@torch.no_grad()
def calibrate_inserted_norms(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Give every inserted norm its input's mean and variance as statistics, and the gain and bias that undo them.

    In eval mode the model computes the same function before and after, up to rounding. In train mode it differs as far
    as the statistics of a batch differ from those of all batches.

    Args:
        model: A model whose inserted norms are the identity function, as after loading a deploy-form checkpoint.
        batches: Inputs of the model to measure on. In distributed runs each process gives its own batches, and all
            count.

    Returns:
        int: Number of batches of this process.

    Raises:
        ValueError: If there is no inserted norm or no batch.
    """
    norms = _find_norms(model)
    # of each norm's input: the number of values of a channel, their sum, the sum of their squares. In float32 the
    # variance would suffer from cancellation.
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64, device=norm.weight.device) for norm in norms}

    def observe(norm: nn.Module, inputs: Tensor) -> None:
        x = inputs.double()  # (N, C, H, W)
        sums[norm][0] += x.numel() / x.shape[1]
        sums[norm][1] += x.sum((0, 2, 3))
        sums[norm][2] += x.square().sum((0, 2, 3))

    num_batches = observe_inputs(model, batches, norms, observe)
    if not norms or not num_batches:
        raise ValueError(f'calibration needs inserted norms and batches, got {len(norms)} and {num_batches}')
    for norm, total in sums.items():
        all_reduce(total)
        count, mean, mean_square = total[0], total[1] / total[0], total[2] / total[0]
        # unbiased, as torch's own running variance
        variance = (mean_square - mean.square()).clamp_min(0) * count / (count - 1).clamp_min(1)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean)
        norm.num_batches_tracked.fill_(num_batches)
    return num_batches


def _find_norms(model: nn.Module) -> list[Any]:
    return [m.deploy_norm for m in model.modules() if isinstance(m, InsertedNormBlock) and not m.deploy]
