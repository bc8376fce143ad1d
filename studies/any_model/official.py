"""Networks with the modules and keys of the official RepVGGplus and QARepVGG repositories.

Written from the papers and the repositories' state-dict keys, not from their code.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrepvgg.benchmark.official import OfficialBlock, OfficialRepVGG, list_blocks, make_conv_norm
from mmrepvgg.models.archs import Arch


class _QABlock(nn.Module):
    """QARepVGG (V2): one batch norm after the sum, no tensors in the identity."""

    def __init__(self, c_in: int, c_out: int, stride: int, groups: int):
        super().__init__()
        self.rbr_dense = make_conv_norm(c_in, c_out, 3, stride, groups)
        self.rbr_1x1 = nn.Conv2d(c_in, c_out, 1, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        self.has_identity = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return self.bn(y + x if self.has_identity else y).relu()


class _Stage(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


def _make_aux_head(channels: int, num_classes: int) -> nn.Sequential:
    conv_norm = make_conv_norm(channels, channels, 3, 2, 1)
    return nn.Sequential(conv_norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(channels, num_classes))


class RepVGGPlus(nn.Module):
    """Blocks with ``post_se``, stage 3 in two halves, and training-only heads, which its inference leaves out."""

    def __init__(self, arch: Arch, deploy: bool = False, num_classes: int = 1000):
        super().__init__()
        rows = list_blocks(arch)
        blocks = [(row[0], OfficialBlock(*row[1:], deploy, 'post_se', 4)) for row in rows]
        stages = [[block for number, block in blocks if number == stage] for stage in range(5)]
        middle = arch.num_blocks[2] // 2
        self.stage0 = stages[0][0]
        self.stage1, self.stage2 = _Stage(stages[1]), _Stage(stages[2])
        self.stage3_first, self.stage3_second = _Stage(stages[3][:middle]), _Stage(stages[3][middle:])
        self.stage4 = _Stage(stages[4])
        widths = {row[0]: row[2] for row in rows}
        if not deploy:
            self.stage1_aux = _make_aux_head(widths[1], num_classes)
            self.stage2_aux = _make_aux_head(widths[2], num_classes)
            self.stage3_first_aux = _make_aux_head(widths[3], num_classes)
        self.linear = nn.Linear(widths[4], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage0(x)
        for stage in (self.stage1, self.stage2, self.stage3_first, self.stage3_second, self.stage4):
            for block in stage.blocks:
                x = block(x)
        return self.linear(x.mean((2, 3)))


class QARepVGG(nn.Module):
    def __init__(self, arch: Arch, num_classes: int = 1000):
        super().__init__()
        blocks = [(row[0], _QABlock(*row[1:])) for row in list_blocks(arch)]
        self.stage0 = blocks[0][1]
        for stage in range(1, 5):
            setattr(self, f'stage{stage}', nn.Sequential(*[block for number, block in blocks if number == stage]))
        self.linear = nn.Linear(list_blocks(arch)[-1][2], num_classes)

    forward = OfficialRepVGG.forward
