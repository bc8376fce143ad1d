"""The block of QARepVGG, made for quantization (Chu et al., AAAI 2024, arXiv:2212.01593)."""

from mmcv.cnn import build_norm_layer
from torch import Tensor

from .blocks import RepVGGBlock
from .forms import SUM_NORM
from .fusion import fuse_conv_norm, get_conv_weight, get_norm_scale_shift, make_identity_kernel, pad_1x1_to_3x3
from .geometry import require_agreement


class QARepVGGBlock(RepVGGBlock):
    """``act(SE(BN(BN(conv3x3(x)) + conv1x1(x) + x)))`` while training; in deploy form :class:`RepVGGBlock` itself.

    This is the paper's final block. In a RepVGG block each branch has a batch norm of its own. There one channel of
    small variance can make the range of the fused kernel, and so the step of its int8 grid, far too large for all other
    channels. Here the 1x1 and the identity branch have no batch norm, so that ranges stay narrow, and a batch norm
    behind the sum keeps the training stable (paper, Sections 3 and 4).

    SE follows the last batch norm, as in RepVGG, so that the switch is exact for archs with SE. In the official code SE
    precedes that norm, and the two forms differ. Arguments, errors and deploy keys are those of :class:`RepVGGBlock`.
    Train keys: ``branch_3x3.conv``, ``branch_3x3.norm``, ``branch_1x1.conv``, ``norm``.
    """

    train_parts = ('branch_3x3', 'branch_1x1', SUM_NORM)

    def _make_branches(self) -> None:
        self.branch_3x3, self.branch_1x1 = self._make_branch(3), self._make_branch(1, with_norm=False)
        self.norm = build_norm_layer(self.norm_cfg, self.out_channels)[1]

    def _sum_branches(self, x: Tensor) -> Tensor:
        y = self.branch_3x3(x) + self.branch_1x1(self._take_centres(x))
        if self.has_identity:
            y += x
        return self.norm(y)

    def _sum_kernels(self) -> tuple[Tensor, Tensor]:
        kernel, bias = fuse_conv_norm(self.branch_3x3)
        kernel_1x1 = get_conv_weight(self.branch_1x1.conv)
        require_agreement(self.branch_3x3.conv, self.branch_1x1.conv, self.has_identity)
        if self.has_identity:
            kernel_1x1 = kernel_1x1 + make_identity_kernel(kernel_1x1, self.groups)
        kernel += pad_1x1_to_3x3(kernel_1x1)
        scale, shift = get_norm_scale_shift(self.norm)
        return kernel * scale.reshape(-1, 1, 1, 1), bias * scale + shift
