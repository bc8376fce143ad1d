"""The network of the official RepVGG repository, to compare with: its modules and its keys.

Written from the paper and from the keys of the authors' files, not from their code.
"""

from collections import OrderedDict

from torch import Tensor, nn

from ..models.archs import Arch


def make_conv_norm(c_in: int, c_out: int, kernel_size: int, stride: int, groups: int) -> nn.Sequential:
    """A convolution and a batch norm."""
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(c_out)))


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.down = nn.Conv2d(channels, squeezed, 1)
        self.up = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class OfficialBlock(nn.Module):
    """A block of either form.

    Args:
        se: ``'se'`` for SE before the activation (RepVGG), ``'post_se'`` for SE after it (RepVGGplus), ``''`` for none.
        ratio: Channels for each channel of the SE's middle.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, groups: int, deploy: bool, se: str, ratio: int):
        super().__init__()
        if deploy:
            self.rbr_reparam = nn.Conv2d(c_in, c_out, 3, stride, 1, groups=groups)
        else:
            self.rbr_dense = make_conv_norm(c_in, c_out, 3, stride, groups)
            self.rbr_1x1 = make_conv_norm(c_in, c_out, 1, stride, groups)
            self.rbr_identity = nn.BatchNorm2d(c_out) if c_in == c_out and stride == 1 else None
        self.se = _SqueezeExcite(c_out, c_out // ratio) if se == 'se' else nn.Identity()
        self.post_se = _SqueezeExcite(c_out, c_out // ratio) if se == 'post_se' else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C_in, H, W)`` -> ``(N, C_out, H / stride, W / stride)``."""
        if hasattr(self, 'rbr_reparam'):
            y = self.rbr_reparam(x)
        else:
            y = self.rbr_dense(x) + self.rbr_1x1(x)
            y = y + self.rbr_identity(x) if self.rbr_identity is not None else y
        return self.post_se(self.se(y).relu())


def list_blocks(arch: Arch) -> list[tuple[int, int, int, int, int]]:
    """Stage (0: the stem), input channels, output channels, stride and groups of each block."""
    widths = [int(64 * 2**i * factor) for i, factor in enumerate(arch.width_factor)]
    channels = min(64, widths[0])
    blocks = [(0, 3, channels, 2, 1)]
    for stage, (num_blocks, width) in enumerate(zip(arch.num_blocks, widths, strict=True), start=1):
        for j in range(num_blocks):
            groups = arch.group_layer_map.get(len(blocks), 1)
            blocks.append((stage, channels, width, 2 if j == 0 else 1, groups))
            channels = width
    return blocks


class OfficialRepVGG(nn.Module):
    """A classifier of an arch, ``(N, 3, H, W)`` -> ``(N, num_classes)``."""

    def __init__(self, arch: Arch, deploy: bool = False, num_classes: int = 1000):
        super().__init__()
        ratio, se = (arch.se_cfg['ratio'], 'se') if arch.se_cfg else (1, '')
        blocks = [(row[0], OfficialBlock(*row[1:], deploy, se, ratio)) for row in list_blocks(arch)]
        self.stage0 = blocks[0][1]
        for stage in range(1, 5):
            setattr(self, f'stage{stage}', nn.Sequential(*[block for number, block in blocks if number == stage]))
        self.linear = nn.Linear(list_blocks(arch)[-1][2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for stage in range(5):
            x = getattr(self, f'stage{stage}')(x)
        return self.linear(x.mean((2, 3)))
