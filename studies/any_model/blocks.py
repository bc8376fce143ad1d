"""Blocks with parallel branches of other projects, in few lines each: written from their papers, not from their code.

Each is called with its numbers of channels and its stride, and gives ``(N, C_out, H / stride, W / stride)``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(c_in: int, c_out: int, size: Any, stride: int = 1, padding: Any = None, **options: Any) -> nn.Sequential:
    """A convolution, with padding for outputs of the same size, and a batch norm."""
    sizes = (size, size) if isinstance(size, int) else size
    padding = tuple(each // 2 for each in sizes) if padding is None else padding
    conv = nn.Conv2d(c_in, c_out, size, stride, padding, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


class ACBlock(nn.Module):
    """ACNet (arXiv 1908.03930): a square kernel, a row and a column."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.square = conv_norm(c_in, c_out, 3, stride)
        self.column = conv_norm(c_in, c_out, (3, 1), stride)
        self.row = conv_norm(c_in, c_out, (1, 3), stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.square(x) + self.column(x) + self.row(x))


class _NormAndPad(nn.Module):
    """A norm, and around it a border of what it makes of zeros, written into the tensor as in the authors' code."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn: Any = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.bn(x), [1, 1, 1, 1])
        border = self.bn.bias - self.bn.running_mean * self.bn.weight * (self.bn.running_var + self.bn.eps).rsqrt()
        for place in (0, -1):
            y[:, :, place, :] = border[:, None]
            y[:, :, :, place] = border[:, None]
        return y


class DiverseBranchBlock(nn.Module):
    """DBB (arXiv 2103.13425): 1x1, kxk, 1x1 before kxk, and 1x1 before an average."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.point = conv_norm(c_in, c_out, 1, stride)
        self.kernel = conv_norm(c_in, c_out, 3, stride)
        self.point_kernel = nn.Sequential(
            nn.Conv2d(c_in, c_in, 1, bias=False), _NormAndPad(c_in), conv_norm(c_in, c_out, 3, stride, padding=0)
        )
        self.point_average = nn.Sequential(
            nn.Conv2d(c_in, c_out, 1, bias=False),
            _NormAndPad(c_out),
            nn.AvgPool2d(3, stride),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.kernel(x)
        y += self.point(x)
        y += self.point_kernel(x)
        y += self.point_average(x)
        return F.relu(y)


class RepConv(nn.Module):
    """YOLOv6 (arXiv 2209.02976) and YOLOv7 (arXiv 2207.02696): RepVGG's branches, other activations."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, act: Callable[[], nn.Module] = nn.SiLU):
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None
        self.rbr_dense = conv_norm(c_in, c_out, 3, stride)
        self.rbr_1x1 = conv_norm(c_in, c_out, 1, stride)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        return self.act(self.rbr_dense(x) + self.rbr_1x1(x) + identity)


class BottleRep(nn.Module):
    """YOLOv6: two blocks and a shortcut with a factor that is learnt."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.conv1 = RepConv(c_in, c_out, stride, nn.ReLU)
        self.conv2 = RepConv(c_out, c_out, act=nn.ReLU)
        self.alpha = nn.Parameter(torch.ones(1))
        self.shortcut = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return y + self.alpha * x if self.shortcut else y


class RepNBottleneck(nn.Module):
    """YOLOv9 (arXiv 2402.13616): a 3x3 and a 1x1 branch, a plain convolution, and a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.dense, self.point = conv_norm(c_in, c_out, 3, stride), conv_norm(c_in, c_out, 1, stride)
        self.conv2 = nn.Sequential(conv_norm(c_out, c_out, 3), nn.SiLU())
        self.shortcut = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.silu(self.dense(x) + self.point(x)))
        return x + y if self.shortcut else y


class RepVggDW(nn.Module):
    """YOLOv10 (arXiv 2405.14458): depthwise 7x7 and 3x3, between 1x1 convolutions."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.point = nn.Sequential(conv_norm(c_in, c_out, 1, stride), nn.SiLU())
        self.large = conv_norm(c_out, c_out, 7, groups=c_out)
        self.small = conv_norm(c_out, c_out, 3, groups=c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(x)
        return F.silu(self.large(x) + self.small(x))


class CSPRepLayer(nn.Module):
    """RT-DETR (arXiv 2304.08069) and D-FINE: blocks of a 3x3 and a 1x1 branch beside a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, num_blocks: int = 3):
        super().__init__()
        self.conv1, self.conv2 = (nn.Sequential(conv_norm(c_in, c_out, 1, stride), nn.SiLU()) for _ in range(2))
        self.bottlenecks = nn.Sequential(*[_TwoBranches(c_out) for _ in range(num_blocks)])

    def forward(self, x: Tensor) -> Tensor:
        return self.bottlenecks(self.conv1(x)) + self.conv2(x)


class _TwoBranches(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv_norm(channels, channels, 3)
        self.conv2 = conv_norm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv1(x) + self.conv2(x))


class LearnableRepLayer(nn.Module):
    """PP-LCNetV3 (PP-OCRv4): four kxk, a 1x1 and an identity branch, then a factor and a shift."""

    def __init__(self, c_in: int, c_out: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.identity = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None
        self.kernels = nn.ModuleList([conv_norm(c_in, c_out, size, stride, groups=groups) for _ in range(4)])
        self.point = conv_norm(c_in, c_out, 1, stride, groups=groups) if size > 1 else None
        self.affine, self.affine_after = _Affine(), _Affine()
        self.act = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.identity(x) if self.identity is not None else 0
        if self.point is not None:
            y = y + self.point(x)
        for kernel in self.kernels:
            y = y + kernel(x)
        y = self.affine(y)
        return self.affine_after(F.hardswish(y)) if self.act else y


class _Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class LCNetV3Block(nn.Sequential):
    """PP-LCNetV3: a depthwise layer and a pointwise one."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__(LearnableRepLayer(c_in, c_in, 5, stride, groups=c_in), LearnableRepLayer(c_in, c_out, 1))


class OREPA(nn.Module):
    """OREPA (arXiv 2204.00826): the branches' kernels are added before there is an image, and a norm follows.

    Here with four branches: 3x3, 1x1, 1x1 before 3x3 and 1x1 before an average, each with a factor for each channel.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.kernel, self.after_point = (nn.Parameter(torch.empty(c_out, c_in, 3, 3)) for _ in range(2))
        self.point, self.before_kernel, self.before_average = (
            nn.Parameter(torch.empty(rows, c_in)) for rows in (c_out, c_in, c_out)
        )
        self.factors = nn.Parameter(torch.ones(4, c_out))
        self.norm = nn.BatchNorm2d(c_out)
        for parameter in (self.kernel, self.after_point, self.point, self.before_kernel, self.before_average):
            nn.init.kaiming_uniform_(parameter, a=1)
        self.register_buffer('average', torch.full((3, 3), 1 / 9))

    def make_kernel(self) -> Tensor:
        parts = [
            self.kernel,
            F.pad(self.point[:, :, None, None], [1, 1, 1, 1]),
            torch.einsum('omhw,mi->oihw', self.after_point, self.before_kernel),
            torch.einsum('oi,hw->oihw', self.before_average, self.average),
        ]
        return torch.einsum('boihw,bo->oihw', torch.stack(parts), self.factors)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(F.conv2d(x, self.make_kernel(), stride=self.stride, padding=1)))


class DilatedReparamBlock(nn.Module):
    """UniRepLKNet (arXiv 2311.15599): a large depthwise kernel and small dilated ones, and a norm after their sum."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.point = nn.Sequential(conv_norm(c_in, c_out, 1, stride), nn.GELU())
        self.large = conv_norm(c_out, c_out, 13, groups=c_out)
        sizes = ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5))
        self.small = nn.ModuleList(
            [
                conv_norm(c_out, c_out, size, padding=dilation * (size // 2), dilation=dilation, groups=c_out)
                for size, dilation in sizes
            ]
        )
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(x)
        y = self.large(x)
        for branch in self.small:
            y = y + branch(x)
        return self.norm(y)


class CollapsibleBlock(nn.Module):
    """SESR (arXiv 2103.09404): a 3x3 to many channels, a 1x1 back, and a shortcut, all of it linear. PReLU follows."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.expand = nn.Conv2d(c_in, 8 * c_out, 3, stride, 1)
        self.squeeze = nn.Conv2d(8 * c_out, c_out, 1)
        self.act = nn.PReLU(c_out)
        self.shortcut = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.squeeze(self.expand(x))
        return self.act(y + x if self.shortcut else y)


def stack(block: Callable[[int, int, int], nn.Module], widths: Sequence[int], depth: int = 2) -> nn.Sequential:
    """A classifier of stages of ``depth`` blocks, each of which halves the image at its beginning."""
    rows = [(widths[max(i - 1, 0)], width, j) for i, width in enumerate(widths) for j in range(depth)]
    blocks = [block(width if j else c_in, width, 1 if j else 2) for c_in, width, j in rows]
    stem = nn.Sequential(conv_norm(3, widths[0], 3, 2), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))
