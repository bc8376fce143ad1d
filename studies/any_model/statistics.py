"""Numbers with which no branch, norm or factor of a model is negligible, as after a training."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def randomise(model: nn.Module, x: Tensor, seed: int = 0) -> nn.Module:
    """Fill a model in eval mode. At their initial values, gains of 1 and layer scales near 0 hide a wrong fusion.

    Batch norms get gains, biases, and statistics that are like those of their inputs for the images ``x``, ``(N, C, H,
    W)``, and differ from these by chance: in a deep network, statistics that know nothing of the inputs would make the
    outputs grow until rounding decides them.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) * (high - low) + low

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for name, parameter in model.named_parameters():
        if name.rpartition('.')[2] == 'bias':
            parameter.copy_(uniform(parameter, -0.3, 0.3))
        elif parameter.numel() == max(parameter.shape, default=1):  # gains, layer scales, other factors
            parameter.copy_(uniform(parameter, 0.5, 1.5))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None
        assert var is not None
        mean += uniform(mean, -0.3, 0.3) * var.sqrt()
        var.copy_(var * uniform(var, 0.5, 2) + 0.1 * var.mean())  # a channel that is always 0 has no variance
    return model
