"""Convolutions whose stride, padding or dilation is changed after construction, as segmentation codes do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.utils import _pair

from mmrepvgg import QARepVGGBlock, RepVGG, RepVGGBlock
from mmrepvgg.models.fake_quant import set_fake_quantization
from mmrepvgg.models.fusion import FusionError
from mmrepvgg.models.inserted_norm import InsertedNormBlock
from mmrepvgg.models.quantization_aware import QuantizationAwareBlock, QuantizationAwareQABlock

BLOCKS = [RepVGGBlock, QARepVGGBlock]
# Channels and arguments of a block, and what its 3x3 and its 1x1 convolution are changed to.
CHANGES = {
    'dilation': (8, 8, dict(), dict(dilation=(2, 2), padding=(2, 2)), dict()),
    'dilation back': (8, 8, dict(dilation=2, padding=2), dict(dilation=(1, 1), padding=(1, 1)), dict()),
    'official PSPNet': (
        4,
        8,
        dict(stride=2),
        dict(dilation=(2, 2), padding=(2, 2), stride=(1, 1)),
        dict(stride=(1, 1)),
    ),
    'dilation of all': (8, 8, dict(), dict(dilation=(2, 2), padding=(2, 2)), dict(dilation=(2, 2))),
    'stride of both': (4, 8, dict(), dict(stride=(2, 2)), dict(stride=(2, 2))),
    'stride of the 3x3': (4, 8, dict(), dict(stride=(3, 3)), dict()),
    'stride in two steps': (4, 8, dict(groups=2), dict(stride=(4, 4)), dict(stride=(2, 2))),
    'integers': (4, 8, dict(stride=2), dict(stride=1, dilation=2, padding=2), dict(stride=1)),
    'not square': (4, 8, dict(), dict(stride=(2, 1), dilation=(1, 2), padding=(0, 3)), dict(stride=(2, 1))),
    'SE': (8, 8, dict(se_cfg=dict(ratio=2, divisor=1)), dict(dilation=(3, 3), padding=(3, 3)), dict()),
}


def change(conv: nn.Conv2d, values: dict) -> None:
    for name, value in values.items():
        setattr(conv, name, value)


def make_changed(randomise, make_block, case, **kwargs):
    in_channels, out_channels, arguments, of_3x3, of_1x1 = CHANGES[case]
    block = randomise(make_block(in_channels, out_channels, **arguments, **kwargs)).double().eval()
    change(block.branch_3x3.conv, of_3x3)
    change(block.branch_1x1.conv, of_1x1)
    return block, torch.randn(2, in_channels, 13, 12, dtype=torch.float64)


def compute_like_official_code(block: RepVGGBlock, x: torch.Tensor) -> torch.Tensor:
    """The sum of the branches by the definition, the 1x1 convolution with the stride of the 3x3 convolution."""
    conv, conv_1x1 = block.branch_3x3.conv, block.branch_1x1.conv
    margins = [p - d for p, d in zip(_pair(conv.padding), _pair(conv.dilation), strict=True)]
    centres = F.pad(x, [margins[1], margins[1], margins[0], margins[0]])
    y = block.branch_3x3(x)
    y_1x1 = F.conv2d(centres, conv_1x1.weight, stride=conv.stride, groups=block.groups)
    if isinstance(block, QARepVGGBlock):
        y = block.norm(y + y_1x1 + (x if block.has_identity else 0))
    else:
        y = y + block.branch_1x1.norm(y_1x1) + (block.branch_norm(x) if block.has_identity else 0)
    return block.act(block.se_layer(y))


@pytest.mark.parametrize('make_block', BLOCKS)
@pytest.mark.parametrize('case', CHANGES)
class TestOrders:
    def test_changed_then_switched(self, randomise, make_block, case):
        block, x = make_changed(randomise, make_block, case)
        expected = compute_like_official_code(block, x)
        torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(torch.jit.script(block)(x), expected, atol=1e-10, rtol=0)
        block.switch_to_deploy()
        torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=0)

    def test_switched_then_changed(self, randomise, make_block, case):
        in_channels, out_channels, arguments, of_3x3, _ = CHANGES[case]
        block, x = make_changed(randomise, make_block, case)
        switched = make_block(in_channels, out_channels, **arguments).double().eval()
        switched.load_state_dict(block.state_dict())
        switched.switch_to_deploy()
        change(switched.branch_reparam, of_3x3)
        torch.testing.assert_close(switched(x), block(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize('make_block', [QuantizationAwareBlock, QuantizationAwareQABlock])
@pytest.mark.parametrize('case', CHANGES)
def test_quantization_aware_blocks_follow(randomise, make_block, case):
    block, x = make_changed(randomise, make_block, case, quantization={})
    block.input_quantizer.observe(x, 1)
    rounded = block(x)
    set_fake_quantization(block, enabled=False)
    expected = block(x)
    assert 0 < (rounded - expected).abs().max() < 0.1 * expected.abs().max()
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=0)


def test_inserted_norms_follow(randomise):
    block = randomise(InsertedNormBlock(4, 8, stride=2)).double().eval()
    change(block.branch_reparam, dict(stride=(1, 1), dilation=(2, 2), padding=(2, 2)))
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    expected = block(x)
    assert expected.shape == (2, 8, 9, 9)
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize('make_block', BLOCKS)
def test_the_padding_mode_is_followed(randomise, make_block):
    block = randomise(make_block(8, 8)).double().eval()
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    before = block(x)
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = 'circular'
    expected = block(x)
    assert (expected - before).abs().max() > 0.1
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=0)


def test_a_changed_network_is_the_network_that_is_built_so(randomise):
    """As the official PSPNet example makes a network of stride 8 from one of stride 32."""
    arch = dict(num_blocks=[1, 2, 2, 2], width_factor=[0.25] * 4, group_layer_map={4: 2})
    changed = randomise(RepVGG(arch)).double().eval()
    built = RepVGG(arch, strides=(2, 2, 1, 1), dilations=(1, 1, 2, 4)).double().eval()
    built.load_state_dict(changed.state_dict())
    for stage, dilation in ((changed.stage_3, 2), (changed.stage_4, 4)):
        for name, module in stage.named_modules():
            if name.endswith('branch_3x3.conv'):
                change(module, dict(dilation=(dilation, dilation), padding=(dilation, dilation), stride=(1, 1)))
            elif name.endswith('branch_1x1.conv'):
                module.stride = (1, 1)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    expected = built(x)
    assert expected[0].shape == (1, 128, 8, 8)
    torch.testing.assert_close(changed(x), expected, atol=1e-10, rtol=0)
    changed.switch_to_deploy()
    torch.testing.assert_close(changed(x), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize('make_block', BLOCKS)
@pytest.mark.parametrize(
    ('out_channels', 'of_3x3', 'of_1x1'),
    [
        (4, dict(), dict(padding=(1, 1))),
        (4, dict(), dict(stride=(2, 2))),
        (4, dict(stride=(3, 3)), dict(stride=(2, 2))),
        (8, dict(stride=(2, 2)), dict(stride=(2, 2))),
        (8, dict(padding=(2, 2)), dict()),
        (8, dict(dilation=(2, 2)), dict()),
    ],
    ids=str,
)
def test_branches_that_contradict_each_other_are_refused(randomise, make_block, out_channels, of_3x3, of_1x1):
    block = randomise(make_block(8, out_channels)).eval()
    change(block.branch_3x3.conv, of_3x3)
    change(block.branch_1x1.conv, of_1x1)
    with pytest.raises(FusionError, match='the branches contradict each other: the 3x3 convolution has stride'):
        block.switch_to_deploy()
    assert not block.deploy
