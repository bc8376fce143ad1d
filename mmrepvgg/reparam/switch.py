"""Switch any model: this project's blocks, and whatever else one convolution computes."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DistributedDataParallel

from ..models.backbone import RepVGG
from ..models.blocks import RepVGGBlock, copy_switched, switch_blocks
from ..models.heads import AuxiliaryClsHead
from .block_report import count_convs, describe_blocks, list_branch_layers
from .outputs import compare_outputs, record_outputs
from .report import SwitchReport
from .structure.fuse import fuse_structure
from .structure.restoring import restoring

M = TypeVar('M', bound=nn.Module)

# Positional arguments, named ones, or the only one.
ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]


@overload
def reparameterize(
    model: M,
    example_inputs: ExampleInputs | None = ...,
    *,
    inplace: bool = ...,
    tolerance: float = ...,
    by_layer: bool = ...,
    return_report: Literal[False] = ...,
) -> M: ...


@overload
def reparameterize(
    model: M,
    example_inputs: ExampleInputs | None = ...,
    *,
    inplace: bool = ...,
    tolerance: float = ...,
    by_layer: bool = ...,
    return_report: Literal[True],
) -> tuple[M, SwitchReport]: ...


def reparameterize(
    model: M,
    example_inputs: ExampleInputs | None = None,
    *,
    inplace: bool = False,
    tolerance: float = 1e-4,
    by_layer: bool = False,
    return_report: bool = False,
) -> M | tuple[M, SwitchReport]:
    """Replace what one convolution computes in eval mode by that convolution: branches, batch norms, layer scales.

    Blocks of this project are known. All other modules are searched by structure, in the graph of their code:
    parallel branches from one tensor to one sum, each of them linear, and batch norms before or behind a convolution
    or a linear layer. The numbers are computed in float64 and rounded once. What is not exact for inputs of all sizes,
    borders included, stays. Training-only heads of this project are dropped.

    The model stays what it is: its class, attributes, methods and hooks. Of the layers that become one, the largest
    keeps its name, and with it the keys ``.weight`` and ``.bias``. They depend on the code of the model and not on its
    weights: a state dict of the result loads into the result of any model of that kind.

    Args:
        model: A block, a backbone, a classifier, a detector or segmentor, any other module, or a wrapper of one (DDP,
            EMA). If you train a switched model in DDP, wrap it anew: DDP's buckets hold the old parameters.
        example_inputs: What the model takes: a tensor, a sequence of positional arguments, or a mapping of named ones.
            The outputs before and after are compared on it.
        inplace: Change ``model`` itself instead of a copy.
        tolerance: Largest allowed difference, relative to the largest output.
        by_layer: Whether the outputs of the modules within are compared, too, for the report.
        return_report: Whether the report is returned, too.

    Returns:
        The model in deploy form (a copy, unless ``inplace``), in the same train or eval mode. A model that is in deploy
        form already does not change. With ``return_report`` also the report of what was fused and what is left.

    Raises:
        TypeError: If ``model`` is no module, or one of TorchScript.
        ValueError: If the model holds no layer that could be fused, can't be copied, or gives outputs that differ by
            more than ``tolerance``. ``model`` has not changed then.
        FusionError: If a block of this project can't be fused. ``model`` has not changed then.
        OverflowError: If a kernel is too large for float16 weights. ``model`` has not changed then.
    """
    _check(model, example_inputs, by_layer)
    before = None if example_inputs is None else record_outputs(model, example_inputs, by_layer)
    branches, num_convs = list_branch_layers(model), count_convs(model)
    if not inplace:
        model = _copy_switched(model)
    with restoring(model):
        switch_blocks(_list_blocks(model))
        report = fuse_structure(model, [each for each in model.modules() if isinstance(each, RepVGG | RepVGGBlock)])
        report = report.with_blocks(describe_blocks(model, branches), num_convs)
        _finish(model)
        if before is not None:
            after = record_outputs(model, example_inputs, by_layer)
            difference, layers = compare_outputs(before, after, report)
            report = report.with_differences(difference, layers)
            if not difference <= tolerance:  # true for NaN, too
                raise ValueError(
                    f'the outputs of the two forms differ by {difference:.2e} of the largest output, more than '
                    f'the tolerance of {tolerance:.0e}; the model has not changed. Look for the module by '
                    '`by_layer=True` and a larger `tolerance`. What sorts or cuts off may jump, such as the boxes of a '
                    'detector: compare its backbone then'
                )
    if left := report.describe_branches(f' in {type(model).__name__}.'):
        warnings.warn(f'{left}. The report names all (`return_report=True`)', stacklevel=2)
    return (model, report) if return_report else model


def switch_own_blocks(model: M) -> M:
    """A copy of a model whose blocks of this project are switched, and nothing else, as in its deploy config."""
    model = _copy_switched(model)
    _finish(model)
    return model


def _copy_switched(model: M) -> M:
    blocks = _list_blocks(model)
    copies = {id(block): copied for block, copied in zip(blocks, copy_switched(blocks), strict=True)}
    try:
        return copy.deepcopy(model, copies)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f'torch can not copy {type(model).__name__}. If it has lazy layers, run it once; if it has weight_norm, '
            'take `torch.nn.utils.parametrizations.weight_norm` in place of the older one; or set `inplace=True`'
        ) from error


def _list_blocks(model: nn.Module) -> list[RepVGGBlock]:
    return [module for module in model.modules() if isinstance(module, RepVGGBlock)]


def _check(model: nn.Module, example_inputs: Any, by_layer: bool) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f'`model` must be a torch.nn.Module, got {type(model).__name__}')
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError('`model` is a TorchScript module, whose code can not be changed; give the one it was made from')
    if isinstance(example_inputs, bool):
        raise TypeError('`example_inputs` must be a tensor, a sequence or a mapping, got a bool; name `inplace=True`')
    if by_layer and example_inputs is None:
        raise ValueError('`by_layer` compares outputs, which needs `example_inputs`')
    if not any(isinstance(module, RepVGGBlock | _ConvNd | nn.Linear | _BatchNorm) for module in model.modules()):
        raise ValueError(f'{type(model).__name__} holds no convolution and no linear layer: there is nothing to fuse')


def _finish(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, RepVGG):
            module.deploy = True
        elif isinstance(module, AuxiliaryClsHead):
            module.switch_to_deploy()
        elif isinstance(module, DistributedDataParallel):
            # DDP would broadcast the batch norms' statistics before each forward pass, and fail without them.
            module.broadcast_buffers = False
