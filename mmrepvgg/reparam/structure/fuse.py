"""Fuse whatever one convolution computes in a model."""

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..block_report import count_convs, summarise
from ..report import Fused, SwitchReport
from .modes import evaluating
from .plan import make_plan
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
    with evaluating(model):
        plan = make_plan(model, known)
        apply(model, plan)
        left = make_plan(model, known) if plan.patterns else plan
    missed = {pattern.key for pattern in left.patterns} if left is not plan else set()
    for pattern in left.patterns if left is not plan else ():
        reasons = left.layers if pattern.is_chain else left.branches
        reasons[pattern.place] = 'the code of its block alone shows another structure'
    plan.patterns = [pattern for pattern in plan.patterns if pattern.key not in missed]
    order = {name: number for number, (name, _) in enumerate(model.named_modules(remove_duplicate=False))}
    plan.patterns.sort(key=lambda pattern: order[pattern.place])
    fused = tuple(
        Fused(pattern.place, pattern.parts, summarise(model.get_submodule(pattern.place))) for pattern in plan.patterns
    )
    norms = {
        name: left.layers.get(name, 'no convolution stands directly before it')
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not any(module in each.modules() for each in known)
    }
    return SwitchReport(
        fused,
        left.branches,
        {**left.layers, **norms},
        left.not_followed,
        len(norms),
        (before, count_convs(model)),
    )
