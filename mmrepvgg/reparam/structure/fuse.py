"""Fuse whatever one convolution computes in a model."""

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..block_report import count_convs, summarise
from ..report import Fused, SwitchReport
from .modes import evaluating
from .patterns import Pattern
from .plan import Plan, make_plan
from .replace import apply


def fuse_structure(model: nn.Module, known: Collection[nn.Module] = ()) -> SwitchReport:
    """Let one convolution take the place of each chain and each sum of parallel branches that it can compute.

    Args:
        model: The model, which is changed in place.
        known: Modules in it that are taken as they are.

    Returns:
        SwitchReport: What was fused and what is left, by a second look at the result.

    Raises:
        OverflowError: If a number is too large for the dtype of its layer.
    """
    before = count_convs(model)
    done: list[Pattern] = []
    with evaluating(model):
        plan = make_plan(model, known)
        # what was fused may be part of something larger, which the code showed only in parts
        while new := _list_new(plan, done):
            apply(model, new)
            done += new
            plan = make_plan(model, known)
    for pattern in plan.patterns:
        reasons = plan.layers if pattern.is_chain else plan.branches
        reasons[pattern.place] = 'the code of its block alone shows another structure'
    missed = {pattern.key for pattern in plan.patterns}
    order = {name: number for number, (name, _) in enumerate(model.named_modules(remove_duplicate=False))}
    layers = _merge([pattern for pattern in done if pattern.key not in missed])
    fused = tuple(
        Fused(place, layers[place], summarise(model.get_submodule(place)))
        for place in sorted(layers, key=order.__getitem__)
    )
    norms = {
        name: plan.layers.get(name) or _explain(name, plan)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not any(module in each.modules() for each in known)
    }
    return SwitchReport(
        fused,
        plan.branches,
        {**plan.layers, **norms},
        plan.not_followed,
        len(norms),
        (before, count_convs(model)),
    )


def _list_new(plan: Plan, done: list[Pattern]) -> list[Pattern]:
    """What was not tried before."""
    tried = {pattern.key for pattern in done}
    return [pattern for pattern in plan.patterns if pattern.key not in tried]


def _merge(patterns: list[Pattern]) -> dict[str, tuple[str, ...]]:
    """The layers before, of each layer that took their place, perhaps in several steps."""
    merged: dict[str, tuple[str, ...]] = {}
    for pattern in patterns:
        parts = tuple(name for part in pattern.parts for name in merged.pop(part, (part,)))
        merged[pattern.place] = (*merged.pop(pattern.place, ()), *parts)
    return merged


def _explain(norm: str, plan: Plan) -> str:
    """Why a batch norm stays of which nothing else is known."""
    if norm.rpartition('.')[0] in plan.not_followed:
        return 'the code around it could not be followed'
    return 'no convolution stands directly before it'
