"""The channels of the images that a network takes."""

from torch import nn


def get_in_channels(model: nn.Module) -> int:
    """Number of channels of the images, which the first convolution tells.

    Raises:
        ValueError: If there is no convolution.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError(f'the model must begin with a 2d convolution, and {type(model).__name__} holds none')
