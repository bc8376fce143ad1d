"""The limit of the machine in int8: the speed of equal convolutions, one behind the other.

PyTorch has no public function for int8 products. So the product is a network, which is exported, quantized and run as
the rows are. Its private one, ``torch._int_mm``, is as fast as these 1x1 convolutions, and slower than the 3x3 ones.
"""

import torch
from torch import nn

from ..models.complexity import count_macs
from .cases import RUNTIMES, Case
from .exported import prepare_exported
from .product import Product

# Kernel size, and width: channels of the input and the output. A 1x1 convolution is a plain product of matrices; as a
# linear layer it is slower, or no faster. A 3x3 one multiplies nine times as much for each number that it rounds, and
# has no shortcut: Winograd does not exist in int8. Wider ones are at most 4% faster, and take longer to prepare. On a
# Zen 5 core, the 3x3 ones reach 96% of what its multipliers can do, in OpenVINO.
_WIDTHS = {1: 1024, 3: 384}
# Of so many layers, all but the convolutions (rounding of the input, and the end) is 1% (3x3) to 4% (1x1) of the time.
_NUM_LAYERS = 8
# Pixels of a feature map, as in RepVGG's long stage, and images, so that each thread has as much to do.
_SIZE = 14
_IMAGES_PER_THREAD = 4


def prepare_int8_stacks(runtime: str, threads: int, max_width: int = max(_WIDTHS.values())) -> list[Product]:
    """Prepare stacks of 1x1 and of 3x3 convolutions. The fastest stack of all runtimes is the limit.

    Args:
        runtime: Key of ``RUNTIMES`` that has int8.
        threads: Number of CPU threads.
        max_width: Largest number of channels.
    """
    return [_prepare(runtime, threads, kernel, min(width, max_width)) for kernel, width in _WIDTHS.items()]


def _prepare(runtime: str, threads: int, kernel: int, width: int) -> Product:
    layers = [(nn.Conv2d(width, width, kernel, padding=kernel // 2), nn.ReLU()) for _ in range(_NUM_LAYERS)]
    # An end as that of the rows: ONNX Runtime computes a convolution in int8 only if its output is rounded, too.
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))
    network = nn.Sequential(*(part for layer in layers for part in layer), *end).eval()
    inputs = torch.randn(_IMAGES_PER_THREAD * threads, width, _SIZE, _SIZE)
    with torch.inference_mode():
        macs = len(inputs) * count_macs(network, inputs[:1])
    case = Case('deploy', f'conv{kernel}x{kernel}', runtime, None, 'int8', 'cpu', threads, len(inputs))
    runner = prepare_exported(case, network, inputs)
    title = (
        f'{_NUM_LAYERS} {kernel}x{kernel} convolutions of {width} channels, {len(inputs)} images of {_SIZE} x {_SIZE}, '
        f'in {RUNTIMES[runtime].title}'
    )
    return Product('cpu', 'int8', title, macs, runner.run)
