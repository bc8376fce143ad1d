"""Exact equalization: channels are rescaled, so that one int8 scale a tensor is enough."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..data.noise import make_noise
from ..measures.difference import Difference, join_outputs
from ..models.blocks import RepVGGBlock
from ..models.fake_quant import find_quantizers
from .channels import Channels, find_channels
from .scales import find_scales
from .sensitivity import describe_weights, measure_sensitivities

M = TypeVar('M', bound=nn.Module)


class NothingToRescaleError(ValueError):
    """No channel of a network can be rescaled. The message says what stops the scales."""


# Largest allowed difference of the outputs, relative to the largest output.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Equalization(Generic[M]):
    """The result of an equalization.

    Attributes:
        model: The equalized model. Its keys and shapes are those of the model before.
        num_channels: Number of channels that were rescaled.
        left_alone: Reason why the outputs of a layer keep their scale, by the name of the layer.
        num_images: Number of images by which the scales were chosen; 0 if the weights alone decided.
        difference: Largest difference of the outputs before and after, relative to the largest output.
    """

    model: M
    num_channels: int
    left_alone: Mapping[str, str]
    num_images: int
    difference: float


def equalize(model: M, images: Tensor | Iterable[Tensor] | None = None, *, inplace: bool = False) -> Equalization[M]:
    """Rescale the channels of a deploy form, so that int8 with one scale a tensor loses least. The function stays.

    The rows and the bias of the layer that makes a channel are divided by a number, and the columns of all layers that
    read the channel are multiplied by it. ReLU, pooling and the gates of squeeze-and-excitation let the number through.
    So the model computes the same function before and after, up to the rounding of its weights: they are computed in
    float64, and rounded once. What the model returns, and what goes through other functions, keeps its scale.

    The numbers make the noise of rounding smallest, as it appears in the output.

    Args:
        model: A network in deploy form with float32 or float64 weights: a classifier, a backbone, or any other module
            that ``torch.export`` can trace.
        images: Inputs as the model takes them, ``(N, C, H, W)``, or batches of them. They tell how large activations
            are, and what weights do to the output. A few hundred are enough. Default: the weights alone decide.
        inplace: Change ``model`` itself instead of a copy.

    Raises:
        NothingToRescaleError: If nothing can be rescaled, as between activations that are not homogeneous (SiLU,
            GELU, hardswish). The model is unchanged then, as it is with the next errors.
        ValueError: If a block is in train form, if the model can't be traced, if there is no image, or if the outputs
            differ too much.
    """
    _check(model)
    batches = iter([images] if isinstance(images, Tensor) else images) if images is not None else None
    example = _make_example(model) if batches is None else next(batches, None)
    if example is None or not len(example):
        raise ValueError('`images` must have at least one image')
    counter = _Counter()
    with _evaluating(model):
        expected = join_outputs(model(example))
        channels = find_channels(model, example[:2])
        if not channels.sizes:
            raise NothingToRescaleError(
                f'nothing in {type(model).__name__} can be rescaled, since only functions such as ReLU and pooling let '
                f'scales pass: {_summarise(channels)}'
            )
        if batches is None:
            sensitivities = describe_weights(channels)
        else:
            sensitivities = measure_sensitivities(model, channels, counter.count(chain([example], batches)))
        scales = find_scales(channels, sensitivities)
        del sensitivities
        equalized = copy.deepcopy(model)
        _rescale(equalized, channels, scales)
        difference = Difference()
        difference.add(expected, join_outputs(equalized(example)))
    if difference.exceeds(TOLERANCE):
        raise ValueError(
            f'the outputs of the equalized model differ by {difference.relative:.2e} of the largest output, more than '
            f'{TOLERANCE:.0e}; the model is unchanged. Weights or activations that are not finite cause that'
        )
    for parameter, original in zip(equalized.parameters(), model.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
        if inplace:
            original.data.copy_(parameter.data)
    for module, before in zip(equalized.modules(), model.modules(), strict=True):
        module.training = before.training
    return Equalization(
        model if inplace else equalized,
        sum(channels.sizes),
        channels.left_alone,
        counter.num_images,
        difference.relative,
    )


def require_float_training(model: nn.Module) -> None:
    """Check that a model in either form was not trained for int8.

    Raises:
        ValueError: If it was: its training chose weights and ranges that fit together.
    """
    if find_quantizers(model):
        raise ValueError(
            '`equalize` would change weights and ranges that quantization-aware training has chosen together; leave it '
            'out, and write the int8 file with `quantize_model`'
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """A model in eval mode, without gradients."""
    modes = {module: module.training for module in model.modules()}
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, is_trained in trained.items():
            parameter.requires_grad_(is_trained)


class _Counter:
    """Counts the images that pass."""

    num_images = 0

    def count(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for batch in batches:
            self.num_images += len(batch)
            yield batch


def _check(model: nn.Module) -> None:
    if any(isinstance(module, RepVGGBlock) and not module.deploy for module in model.modules()):
        raise ValueError(
            f'{type(model).__name__} has blocks in train form, but only the deploy form can be equalized; switch it '
            'with `reparameterize` first'
        )
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if not dtypes <= {torch.float32, torch.float64}:
        raise ValueError(
            f'the weights must be float32 or float64, got {", ".join(sorted(map(str, dtypes)))}; equalize the model '
            'before its precision is lowered'
        )


def _make_example(model: nn.Module) -> Tensor:
    """Noise as an input of a model: for its first block or, if it has none, its first convolution."""
    first: Any = next(
        (module for kind in (RepVGGBlock, nn.Conv2d) for module in model.modules() if isinstance(module, kind)), None
    )
    if first is None:
        raise ValueError(f'{type(model).__name__} has no Conv2d; give `images`, inputs as the model takes them')
    return make_noise(first.in_channels).to(next(model.parameters()))


def _rescale(model: nn.Module, channels: Channels, scales: list[Tensor]) -> None:
    for layer in channels.layers:
        module: Any = model.get_submodule(layer.path)
        weight = module.weight.cpu().double()  # not every device has float64
        tail = (1,) * (weight.ndim - 2)
        if layer.source is not None:
            columns = scales[layer.source].view(layer.groups, 1, -1).expand(-1, len(weight) // layer.groups, -1)
            weight = weight * columns.reshape(len(weight), -1, *tail)
        if layer.target is not None:
            weight = weight / scales[layer.target].view(-1, 1, *tail)
            if module.bias is not None:
                module.bias.copy_(module.bias.cpu().double() / scales[layer.target])
        module.weight.copy_(weight)


def _summarise(channels: Channels) -> str:
    reasons = [f'{name}: {reason}' for name, reason in channels.left_alone.items()]
    more = f'; and {len(reasons) - 3} more layers' if len(reasons) > 3 else ''
    return '; '.join(reasons[:3]) + more if reasons else 'it has no layers'
