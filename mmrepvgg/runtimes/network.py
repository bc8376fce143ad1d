"""The network in a file: the deploy form with its precision, preprocessing and softmax."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .metadata import ExportMetadata

# The networks halve an image five times.
_MIN_FREE_SIZE = 64

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class ExportError(ValueError):
    """A model that can't be exported as asked."""


class DeployedNetwork(nn.Module):
    """A classifier in deploy form. Its inputs and outputs are float32 in every precision.

    Args:
        model: Classifier whose forward gives logits ``(N, classes)``. It is changed to the precision.
        precision: Key of :data:`DTYPES`.
        softmax: Whether the outputs are probabilities instead of logits.
    """

    def __init__(self, model: nn.Module, precision: str = 'fp32', softmax: bool = False):
        super().__init__()
        self.dtype = DTYPES[precision]
        self.model = model.to(self.dtype)
        self.softmax = softmax

    def forward(self, images: Tensor) -> Tensor:
        # a cast without effect would give its name to the layer before it in OpenVINO files
        is_float = self.dtype == torch.float32
        scores = self.model(images) if is_float else self.model(images.to(self.dtype)).float()
        return scores.softmax(1) if self.softmax else scores


class WithPreprocess(nn.Module):
    """A network that normalises uint8 images ``(N, C, H, W)`` itself.

    Args:
        network: Network that takes normalised images.
        metadata: Description of the file, with its normalisation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, metadata: ExportMetadata):
        super().__init__()
        self.network = network
        self.to_rgb = metadata.to_rgb
        self.normalise = bool(metadata.mean)
        self.register_buffer('mean', torch.tensor(metadata.mean).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(metadata.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.to_rgb:
            images = images.flip(1)
        images = images.float()
        if self.normalise:
            images = (images - self.mean) / self.std
        return self.network(images)


def wrap_network(model: nn.Module, metadata: ExportMetadata, precision: str) -> nn.Module:
    """A classifier in eval mode, with all that its file has inside.

    Args:
        model: Network from normalised images to logits. It is changed to the precision.
        metadata: Description of the file.
        precision: Precision of the weights, a key of :data:`DTYPES`.
    """
    network: nn.Module = DeployedNetwork(model, precision, metadata.softmax)
    if metadata.with_preprocess:
        network = WithPreprocess(network, metadata)
    return network.eval().requires_grad_(False)


def list_free_axes(metadata: ExportMetadata) -> tuple[int, ...]:
    """The axes of the input ``(N, C, H, W)`` of a file that have any size."""
    return (*((0,) if metadata.batch_size is None else ()), *((2, 3) if metadata.dynamic_size else ()))


def make_example(metadata: ExportMetadata) -> Tensor:
    """Zeros as an input of a file.

    Exporters take a size of 1 for a constant. So 2 stands for any batch size, and where the height and the width are
    free no feature map becomes as small as 1 pixel.
    """
    height, width = (max(size, _MIN_FREE_SIZE) if metadata.dynamic_size else size for size in metadata.input_size)
    shape = (metadata.batch_size or 2, metadata.channels, height, width)
    return torch.zeros(shape, dtype=torch.uint8 if metadata.with_preprocess else torch.float32)


@torch.no_grad()
def check_half_range(model: nn.Module, inputs: Iterable[Tensor]) -> float:
    """Check that the weights of a float32 model, and the outputs of its layers on ``inputs``, fit into float16.

    Returns:
        float: Largest absolute output of a convolution or linear layer. The largest float16 number is 65504.

    Raises:
        ExportError: If a number would overflow. The message names its layer.
    """
    limit = torch.finfo(torch.float16).max
    advice = 'fp16 has no larger number; set `precision` to bf16 or fp32'
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.abs().max() <= limit:
            raise ExportError(f'{name} reaches {weight.abs().max().item():.3g}, above {limit:.0f}: {advice}')
    peaks: dict[str, float] = {}

    def record(name: str, output: Tensor) -> None:
        peak = output.abs().max().item()
        if not peak <= peaks.get(name, 0.0):  # true for NaN too
            peaks[name] = peak if peak > 0 else torch.inf

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: record(name, output))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        for batch in inputs:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, peak in peaks.items():
        if not peak <= limit:
            raise ExportError(f'the output of {name} reaches {peak:.3g}, above {limit:.0f}: {advice}')
    return max(peaks.values(), default=0.0)
