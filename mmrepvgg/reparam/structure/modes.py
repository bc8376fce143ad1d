"""The train and eval modes of a model's parts."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in eval mode. New parts get the mode of what is around them then."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module in model.modules():
            module.training = modes.get(module, module.training)
            for child in module.children():
                modes.setdefault(child, module.training)
