"""The report of a model whose blocks of this project were switched, and nothing else."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..models.blocks import RepVGGBlock
from ..models.forms import DEPLOY_BRANCH
from .report import Fused, SwitchReport


def report_blocks(before: nn.Module, after: nn.Module) -> SwitchReport:
    """Say what became of the blocks of ``before`` in ``after``, its deploy form."""
    kept = {name for name, _ in after.named_modules()}
    gone = [name for name, module in before.named_modules() if isinstance(module, _ConvNd | _BatchNorm)]
    gone = [name for name in gone if name not in kept]
    fused = []
    for name, block in after.named_modules():
        layers = tuple(layer for layer in gone if layer.startswith(f'{name}.' if name else ''))
        if isinstance(block, RepVGGBlock) and layers:
            conv = block.get_submodule(DEPLOY_BRANCH)
            place = f'{name}.{DEPLOY_BRANCH}'.lstrip('.')
            fused.append(Fused(place, layers, f'{type(conv).__name__}({conv.extra_repr()})'))
    norms = [name for name, module in after.named_modules() if isinstance(module, _BatchNorm)]
    return SwitchReport(
        tuple(fused),
        {},
        dict.fromkeys(norms, 'it is in no block of this project'),
        {},
        len(norms),
        (_count_convs(before), _count_convs(after)),
    )


def _count_convs(model: nn.Module) -> int:
    return sum(isinstance(module, _ConvNd) for module in model.modules())
