"""What became of the blocks of this project, for the report."""

from collections.abc import Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..models.blocks import RepVGGBlock
from ..models.forms import DEPLOY_BRANCH
from .report import Fused, SwitchReport


def list_branch_layers(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The names of the layers that the switch joins, by the names of their blocks."""
    layers = {}
    for name, block in model.named_modules():
        if isinstance(block, RepVGGBlock) and not block.deploy:
            start = f'{name}.' if name else ''
            layers[name] = tuple(
                start + path
                for path, part in block.named_modules()
                if isinstance(part, _ConvNd | _BatchNorm) and path.startswith(block.train_parts)
            )
    return layers


def describe_blocks(model: nn.Module, layers: Mapping[str, tuple[str, ...]]) -> tuple[Fused, ...]:
    """What the layers have become in the switched model."""
    places = {(f'{name}.{DEPLOY_BRANCH}' if name else DEPLOY_BRANCH): each for name, each in layers.items()}
    return tuple(Fused(place, each, summarise(model.get_submodule(place))) for place, each in places.items())


def report_blocks(before: nn.Module, after: nn.Module) -> SwitchReport:
    """The report of a model whose blocks of this project were switched, and nothing else."""
    norms = [name for name, module in after.named_modules() if isinstance(module, _BatchNorm)]
    return SwitchReport(
        describe_blocks(after, list_branch_layers(before)),
        {},
        dict.fromkeys(norms, 'it is in no block of this project'),
        {},
        len(norms),
        (count_convs(before), count_convs(after)),
    )


def count_convs(model: nn.Module) -> int:
    """Number of convolutions, transposed ones too."""
    return sum(isinstance(module, _ConvNd) for module in model.modules())


def summarise(layer: nn.Module) -> str:
    """A layer in words, as torch prints it."""
    return f'{type(layer).__name__}({layer.extra_repr()})'
