"""Quantization-aware training: blocks that round to int8 as the exported file will do.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (CVPR
2018, arXiv:1712.05877), applied to the equivalent kernel of a block, as RepVGG's authors advise.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .blocks import RepVGGBlock
from .fake_quant import ActivationQuantizer
from .fake_quant_settings import FakeQuantization
from .int8 import fake_quantize_kernel
from .qarepvgg import QARepVGGBlock


class QuantizationAwareBlock(RepVGGBlock):
    """A block whose train form is one convolution of its input, rounded to uint8, with its kernel, rounded to int8.

    The batch norms stay in eval mode: their statistics are constants of the equivalent kernel, and only their gains and
    biases are trained. The switch drops the quantizer and keeps the kernel that was not rounded.

    Args:
        *args: Arguments of :class:`RepVGGBlock`.
        quantization: Arguments of :class:`FakeQuantization`.
        **kwargs: Further arguments of :class:`RepVGGBlock`.
    """

    def __init__(self, *args: Any, quantization: Mapping[str, Any], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.quantization = FakeQuantization.from_config(quantization)
        self.input_quantizer = ActivationQuantizer(self.quantization.ranges == 'learned', self.quantization.momentum)
        self.train()

    def train(self, mode: bool = True) -> 'QuantizationAwareBlock':
        """Set the mode. The batch norms stay in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def _compute_branches(self, x: Tensor) -> Tensor:
        # outside of what with_cp computes twice, or the input would be observed twice
        return super()._compute_branches(self.input_quantizer(x))

    def _sum_branches(self, x: Tensor) -> Tensor:
        if not self.input_quantizer.enabled:
            return super()._sum_branches(x)
        kernel, bias = self.get_equivalent_kernel_bias()
        kernel = fake_quantize_kernel(kernel, self.quantization.granularity == 'per-channel')
        return self._get_conv()._conv_forward(x, kernel, bias)

    def _become(self, conv: nn.Conv2d) -> None:
        super()._become(conv)
        del self.input_quantizer


class QuantizationAwareQABlock(QuantizationAwareBlock, QARepVGGBlock):
    """:class:`QuantizationAwareBlock` with the branches of QARepVGG."""
