"""The network as it is exported: precision, preprocessing and softmax around the deploy form."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .metadata import ExportMetadata

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class ExportError(ValueError):
    """A model that can't be exported as asked."""


class DeployedNetwork(nn.Module):
    """A classifier in deploy form from images to scores, both float32 whatever the precision inside.

    Args:
        model: A classifier whose forward gives logits ``(N, classes)``. It is changed to the precision.
        precision: A key of :data:`DTYPES`.
        softmax: Give probabilities.
    """

    def __init__(self, model: nn.Module, precision: str = 'fp32', softmax: bool = False):
        super().__init__()
        self.dtype = DTYPES[precision]
        self.model = model.to(self.dtype)
        self.softmax = softmax

    def forward(self, images: Tensor) -> Tensor:
        scores = self.model(images.to(self.dtype)).float()
        return scores.softmax(1) if self.softmax else scores


class WithPreprocess(nn.Module):
    """A network that takes images as they are read: uint8 ``(N, C, H, W)``, normalised inside.

    Args:
        network: What takes normalised images.
        mean: For each channel, after the change to RGB; empty for no normalisation.
        std: Likewise.
        to_rgb: Reverse the order of the channels first.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], to_rgb: bool):
        super().__init__()
        self.network = network
        self.to_rgb = to_rgb
        self.normalise = bool(mean)
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.to_rgb:
            images = images.flip(1)
        images = images.float()
        if self.normalise:
            images = (images - self.mean) / self.std
        return self.network(images)


def wrap_network(model: nn.Module, metadata: ExportMetadata, precision: str) -> nn.Module:
    """A classifier with all that its file is to have inside, in eval mode.

    Args:
        model: What gives logits for normalised images; it is changed to the precision.
        metadata: What the file is.
        precision: Of the weights; int8 files are made of float32 ones.
    """
    network: nn.Module = DeployedNetwork(model, 'fp32' if precision == 'int8' else precision, metadata.softmax)
    if metadata.with_preprocess:
        network = WithPreprocess(network, metadata.mean, metadata.std, metadata.to_rgb)
    return network.eval().requires_grad_(False)


def make_example(metadata: ExportMetadata) -> Tensor:
    """An input of a file: zeros. A batch of 1 would be taken for a constant, so any number is shown by 2."""
    shape = (metadata.batch_size or 2, metadata.channels, *metadata.input_size)
    return torch.zeros(shape, dtype=torch.uint8 if metadata.with_preprocess else torch.float32)


@torch.no_grad()
def check_half_range(model: nn.Module, inputs: Iterable[Tensor]) -> float:
    """Check that a float32 model stays within float16: its weights, and on ``inputs`` what its layers give.

    Returns:
        The largest absolute output of a convolution or linear layer; float16 ends at 65504.

    Raises:
        ExportError: If something would overflow; names where.
    """
    limit = torch.finfo(torch.float16).max
    advice = 'fp16 would give infinity there; give `precision` bf16 or fp32'
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.abs().max() <= limit:
            raise ExportError(f'{name} reaches {weight.abs().max().item():.3g}, over {limit:.0f}: {advice}')
    peaks: dict[str, float] = {}

    def record(name: str, output: Tensor) -> None:
        peak = output.abs().max().item()
        if not peak <= peaks.get(name, 0.0):  # not >, which NaN would pass
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
            raise ExportError(f'the output of {name} reaches {peak:.3g}, over {limit:.0f}: {advice}')
    return max(peaks.values(), default=0.0)
