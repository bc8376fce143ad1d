"""The outputs of a model and of the modules within, before and after the switch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .report import SwitchReport


@dataclass(frozen=True)
class Outputs:
    """What a model gave.

    Attributes:
        model: Its outputs, as a list of tensors.
        layers: Those of the modules within, by name, for modules that were called once and gave one tensor.
    """

    model: list[Tensor]
    layers: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def record_outputs(model: nn.Module, inputs: Any, by_layer: bool) -> Outputs:
    """Run a model in eval mode. Its mode stays.

    Args:
        model: The model.
        inputs: A tensor, a sequence of positional arguments, or a mapping of named ones.
        by_layer: Whether the outputs of the modules within are kept, too.
    """
    layers: dict[str, Tensor] = {}
    modes = {module: module.training for module in model.modules()}
    handles = []
    if by_layer:
        names = {module: name for name, module in model.named_modules() if name}
        handles = [module.register_forward_hook(_make_hook(name, layers)) for module, name in names.items()]
    model.eval()
    try:
        if isinstance(inputs, Tensor):
            outputs = model(inputs)
        elif isinstance(inputs, Mapping):
            outputs = model(**inputs)
        else:
            outputs = model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return Outputs([each.clone() for each in _list_tensors(outputs)], layers)


def _make_hook(name: str, layers: dict[str, Tensor]) -> Any:
    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            layers[name] = output.clone()  # a later layer may overwrite it

    return keep


def _list_tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, Sequence) and not isinstance(outputs, str):
        return [tensor for each in outputs for tensor in _list_tensors(each)]
    if hasattr(outputs, '__dict__'):  # a data class of a model
        return _list_tensors(vars(outputs))
    return []


def compare_outputs(before: Outputs, after: Outputs, report: SwitchReport) -> tuple[float, dict[str, float]]:
    """The differences relative to the largest output: of the model, and of the modules that compute what they did."""
    if not before.model:
        raise ValueError('the model gives no tensor for `example_inputs`, so that nothing can be compared')
    # torch's maximum of numbers with a NaN is NaN, Python's may be another
    largest = torch.tensor([_measure(*pair) for pair in zip(before.model, after.model, strict=True)]).max().item()
    # the layers that became one compute something else than the one of that name did
    changed = {each.name for each in report.fused if each.name != each.layers[-1]}
    layers = {
        name: _measure(output, after.layers[name])
        for name, output in before.layers.items()
        if name in after.layers and name not in changed and output.shape == after.layers[name].shape
    }
    return largest, layers


def _measure(one: Tensor, other: Tensor) -> float:
    if not one.numel():
        return 0.0
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else 1.0
    if not (one.isfinite().all() and other.isfinite().all()):
        return float('nan')
    return ((one - other).abs().max() / one.abs().max().clamp(min=torch.finfo(one.dtype).tiny)).item()
