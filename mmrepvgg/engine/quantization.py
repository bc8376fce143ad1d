"""Quantization-aware training in the training loop."""

from collections import Counter
from collections.abc import Iterable

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from ..models.fake_quant import ActivationQuantizer, find_quantizers, set_fake_quantization
from ..models.norm_scales import clip_norm_scales
from .sampling import iterate_training_inputs, observe_inputs


class QuantizationAwareHook(Hook):
    """Before quantization-aware training, observe the activations' ranges on training batches. Later, freeze them.

    Without this hook the first training batch alone would set the ranges, and frozen stages would never get any.
    Ranges that the loaded checkpoint has, as in a resumed run, stay as they are.

    Args:
        num_calibration_batches: Largest number of training batches to observe, in each process.
        freeze_ranges_after: Number of epochs after which observed ranges no longer move, so that the weights adapt to
            the ranges that are deployed. None lets them move until the end. Learned ranges are always trained.
        clip_scales: Largest scale of a batch norm before training, as a multiple of the median
            (:func:`clip_norm_scales`). Per-tensor training does not recover from kernels that nearly dead channels
            made wide. None keeps the scales.
    """

    def __init__(
        self,
        num_calibration_batches: int = 20,
        freeze_ranges_after: int | None = None,
        clip_scales: float | None = None,
    ):
        if num_calibration_batches < 1:
            raise ValueError(f'num_calibration_batches must be at least 1, got {num_calibration_batches}')
        if freeze_ranges_after is not None and freeze_ranges_after < 0:
            raise ValueError(f'freeze_ranges_after must be a number of epochs or None, got {freeze_ranges_after}')
        if clip_scales is not None and not clip_scales >= 1:
            raise ValueError(f'clip_scales must be at least 1, or None, got {clip_scales}')
        self.num_calibration_batches = num_calibration_batches
        self.clip_scales = clip_scales
        self.freeze_ranges_after = freeze_ranges_after

    # mmengine calls it after the checkpoint is loaded.
    def before_train(self, runner: Runner) -> None:
        model = getattr(runner.model, 'module', runner.model)
        quantizers = find_quantizers(model)
        if not quantizers:
            raise ValueError(
                'the model has no quantizer; give the backbone quantization=dict(...), or leave out '
                'QuantizationAwareHook'
            )
        if self.freeze_ranges_after is not None and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                'freeze_ranges_after counts epochs, and the training counts iterations (train_cfg); leave out '
                'freeze_ranges_after, or train by epochs'
            )
        if all(quantizer.is_observed for quantizer in quantizers.values()):
            return

        if self.clip_scales is not None:
            num_limited = clip_norm_scales(model, self.clip_scales)
            print_log(f'limited the batch norm scales of {num_limited} channels', 'current')

        num_batches = calibrate_activation_ranges(model, iterate_training_inputs(runner, self.num_calibration_batches))
        print_log(f'observed the ranges of {len(quantizers)} inputs on {num_batches} training batches', 'current')

    def before_train_epoch(self, runner: Runner) -> None:
        if self.freeze_ranges_after is not None and runner.epoch >= self.freeze_ranges_after:
            for quantizer in find_quantizers(runner.model).values():
                quantizer.observes = False


def calibrate_activation_ranges(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set each range that was not observed yet: to the mean of the batches' minima and the mean of their maxima.

    The model runs in floating point and in eval mode.

    Args:
        model: A model in train form with quantization-aware blocks.
        batches: Inputs of the model to observe. In distributed runs each process gives its own batches, and all count.

    Returns:
        int: Number of batches of this process.

    Raises:
        ValueError: If there is no batch.
    """
    pending = [quantizer for quantizer in find_quantizers(model).values() if not quantizer.is_observed]
    counts: Counter[ActivationQuantizer] = Counter()

    def observe(quantizer: ActivationQuantizer, x: Tensor) -> None:
        counts[quantizer] += 1
        quantizer.observe(x, 1 / counts[quantizer])  # the mean of all batches up to this one

    set_fake_quantization(model, enabled=False)
    try:
        num_batches = observe_inputs(model, batches, pending, observe)
    finally:
        set_fake_quantization(model, enabled=True)
    if not num_batches:
        raise ValueError('calibration needs at least one batch, got none')
    return num_batches
