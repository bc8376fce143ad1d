"""Random blocks and networks, and how far their two forms differ."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrepvgg import QARepVGGBlock, RepVGG, RepVGGBlock
from mmrepvgg.models.fusion import get_conv_weight
from mmrepvgg.models.inserted_norm import InsertedNormBlock
from mmrepvgg.models.merged_branches import MergedBranchesBlock

_CLASSES = {cls.__name__: cls for cls in (RepVGGBlock, QARepVGGBlock, MergedBranchesBlock, InsertedNormBlock)}

# A case is a dict with the keys of BLOCKS or NETWORKS, and one of the choices for each. hypothesis and ``random`` draw
# from the same choices. The simplest ones come first, because hypothesis shrinks towards them.
NUMBERS: dict[str, Sequence[Any]] = {
    'seed': range(2**31),
    'eps': (1e-5, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12),
    'variances': ('usual', 'wide', 'small', 'large'),
    'gains': ('positive', 'signed', 'some zero', 'zero'),
    'norm': ('BN', 'BN2d', 'SyncBN', 'BN without gains'),
}
BLOCKS: dict[str, Sequence[Any]] = NUMBERS | {
    'block': tuple(_CLASSES),
    'in_channels': range(1, 65),
    'same_channels': (True, False),  # with as many channels, and no stride, there is an identity branch
    'out_channels': range(1, 65),
    'groups': (1, 2, 3, 4, 6, 8, 16, 32, 0),  # the largest common divisor with the channels is taken; 0 is depthwise
    'stride': (1, 1, 2, 3),
    'dilation': (1, 2, 3),
    'padding': (None, None, None, 0, 1, 2, 3),  # None: that of the dilation
    'padding_mode': ('zeros', 'reflect', 'replicate', 'circular'),
    'se': (None, 'before', 'after'),  # the activation
    'conv': ('Conv', 'ConvWS', 'ConvAWS'),
    'act': ('ReLU', None, 'SiLU', 'LeakyReLU'),
    'height': range(8, 13),
    'width': range(8, 13),
}
NETWORKS: dict[str, Sequence[Any]] = NUMBERS | {
    'block': ('RepVGGBlock', 'QARepVGGBlock'),
    'branches': ('separate', 'merged'),
    'variances': ('usual',),  # others would make all but one channel of a deep network invisible
    'gains': ('positive', 'signed', 'some zero'),
    'num_blocks': ((1, 1), (1,), (2, 3), (1, 2, 1), (2, 2, 2, 1)),
    'width': range(2, 17),
    'groups': (1, 2),
    'se': (None, 'before', 'after'),
    'stride': (2, 1),
    'dilation': (1, 2),
}

# Smallest and largest running variance. The variances of a layer lie between them, evenly in their logarithm.
_VARIANCES = {'usual': (0.25, 4.0), 'wide': (1e-12, 1e6), 'small': (1e-12, 1e-10), 'large': (1e4, 1e6)}


def draw(choices: Mapping[str, Sequence[Any]], choose: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """A case: one of each of the choices."""
    return {name: choose(values) for name, values in choices.items()}


def make_block(case: Mapping[str, Any]) -> tuple[RepVGGBlock, Tensor]:
    """The block of a case in train form, eval mode and float64, and an input for it.

    What is not possible together is replaced by what is: a weight-standardising convolution knows zeros as padding
    alone, and standardises several weights, and an inserted norm has gains.
    """
    c_in = case['in_channels']
    c_out = c_in if case['same_channels'] else case['out_channels']
    groups = math.gcd(c_in, c_out, case['groups'])
    norm_cfg = _make_norm_cfg(case)
    if case['block'] == 'InsertedNormBlock':
        norm_cfg.pop('affine', None)
    takes_mode = case['conv'] == 'Conv' or case['padding_mode'] == 'zeros'
    conv_cfg = dict(type=case['conv']) if takes_mode and c_in > groups else None
    block = _CLASSES[case['block']](
        c_in,
        c_out,
        stride=case['stride'],
        padding=case['dilation'] if case['padding'] is None else case['padding'],
        dilation=case['dilation'],
        groups=groups,
        padding_mode=case['padding_mode'],
        se_cfg=case['se'] and dict(ratio=2, divisor=1),
        se_after_act=case['se'] == 'after',
        conv_cfg=conv_cfg,
        norm_cfg=norm_cfg,
        act_cfg=case['act'] and dict(type=case['act']),
    )
    generator = _fill(block, case)
    x = torch.randn(2, c_in, case['height'], case['width'], generator=generator, dtype=torch.float64)
    return block.double().eval(), x


def make_network(case: Mapping[str, Any]) -> tuple[RepVGG, Tensor]:
    """The backbone of a case in train form, eval mode and float64, and an input for it."""
    num_stages = len(case['num_blocks'])
    is_plain = case['block'] == 'RepVGGBlock'
    network = RepVGG(
        dict(
            num_blocks=case['num_blocks'],
            width_factor=[1] * num_stages,
            group_layer_map=dict.fromkeys(range(2, sum(case['num_blocks']) + 1, 2), case['groups']),
            se_cfg=case['se'] and dict(ratio=2, divisor=1),
            se_after_act=case['se'] == 'after',
        ),
        base_channels=2 * case['width'],
        out_indices=range(num_stages),
        strides=[case['stride']] * num_stages,
        dilations=[case['dilation']] * num_stages,
        norm_cfg=_make_norm_cfg(case),
        block=case['block'],
        branches=case['branches'] if is_plain else 'separate',
        init_cfg=None,
    )
    generator = _fill(network, case)
    return network.double().eval(), torch.randn(2, 3, 32, 32, generator=generator, dtype=torch.float64)


def _make_norm_cfg(case: Mapping[str, Any]) -> dict[str, Any]:
    name, *without_gains = case['norm'].split(' without ')
    return dict(type=name, eps=case['eps']) | (dict(affine=False) if without_gains else {})


@torch.no_grad()
def _fill(module: nn.Module, case: Mapping[str, Any]) -> torch.Generator:
    """Give weights and statistics random numbers. At their initial values a wrong fusion would pass."""
    generator = torch.Generator().manual_seed(case['seed'])

    def uniform(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator)

    for part in module.modules():
        if isinstance(part, _BatchNorm):
            _fill_norm(part, case, uniform)
        elif isinstance(part, nn.Conv2d):
            fan_in = part.weight[0].numel()
            part.weight.copy_((2 * uniform(part.weight) - 1) * (3 / fan_in) ** 0.5)
            for extra in (part.bias, getattr(part, 'weight_gamma', None), getattr(part, 'weight_beta', None)):
                if extra is not None:
                    extra.copy_(2 * uniform(extra) - 1)
    return generator


def _fill_norm(norm: Any, case: Mapping[str, Any], uniform: Callable[[Tensor], Tensor]) -> None:
    low, high = map(math.log, _VARIANCES[case['variances']])
    norm.running_var.copy_((low + (high - low) * uniform(norm.running_var)).exp())
    # the mean of an activation is about as large as its standard deviation
    norm.running_mean.copy_((2 * uniform(norm.running_mean) - 1) * norm.running_var.sqrt())
    if norm.affine:
        gains = 0.5 + uniform(norm.weight)
        if case['gains'] != 'positive':
            gains *= (uniform(gains) - 0.5).sign()
        if case['gains'] == 'some zero':
            gains *= (uniform(gains) > 0.5).float()
        norm.weight.copy_(gains * (case['gains'] != 'zero'))
        norm.bias.copy_(2 * uniform(norm.bias) - 1)


def split_block(block: RepVGGBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of a block's branches, or what its one convolution gives instead, and the block's output."""
    sums: list[Tensor] = []
    first = block.act if block.se_after_act else block.se_layer
    # a copy: a ReLU overwrites its input
    handle = first.register_forward_pre_hook(lambda module, inputs: sums.append(inputs[0].clone()))
    with torch.no_grad():
        output = block(x)
    handle.remove()
    return sums[0], output


@torch.no_grad()
def measure_terms(block: RepVGGBlock, x: Tensor) -> Tensor:
    """The largest sum, over the pixels of each channel ``(C_out,)``, of the absolute values of all terms.

    Rounding errors of a sum are in proportion to its terms, not to itself: where branches cancel, a difference that is
    large beside the sum is rounding. So this is what a difference is compared with. It is found by the block itself,
    with the absolute values of all its numbers.
    """
    block = copy.deepcopy(block)
    for part in block.modules():
        if isinstance(part, nn.Conv2d):
            weight = get_conv_weight(part)
            part.__class__ = nn.Conv2d  # no longer one that standardises its weights
            part.weight.copy_(weight.abs())
            if part.bias is not None:
                part.bias.abs_()
        elif isinstance(part, _BatchNorm):
            norm: Any = part
            norm.running_mean.abs_().neg_()
            if norm.affine:
                norm.weight.abs_()
                norm.bias.abs_()
    return split_block(block, x.abs())[0].amax((0, 2, 3))
