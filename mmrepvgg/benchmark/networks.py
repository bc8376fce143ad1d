"""The networks to time. Networks of one arch have the same weights, so that their outputs can be compared."""

import copy
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints.translate import from_ours
from ..data.images import find_input_size
from ..models.archs import get_arch
from ..models.building import build_model
from ..registry import build_classifier
from ..reparam.forms import switch
from ..reparam.switch import reparameterize
from ..zoo.named_models import load_model_config
from .cases import NETWORKS, OWN_TRAIN_FORMS, is_named
from .official import OfficialRepVGG

NUM_CLASSES = 1000


def build_reference(model: str, seed: int = 0) -> nn.Module:
    """Build a classifier in eval mode with seeded weights: RepVGG in train form, or one of timm's networks.

    Speed does not depend on the weights, but the check of the outputs needs batch norms that change their input. So
    their gains and biases are random. Their statistics are those of a batch of noise, which keeps activations near 1
    and within the range of fp16.

    Args:
        model: Arch of RepVGG, name of a model of another project, or key of ``NETWORKS`` that has no arch.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = (64, 64)
        if is_named(model):
            cfg = load_model_config(model)
            network, size = build_model(cfg, deploy=False), find_input_size(cfg)
        else:
            network = _create_timm(model) if model in NETWORKS else build_classifier(_classifier_cfg(model))
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.weight, 0.1, 0.3)
                nn.init.uniform_(module.bias, -0.1, 0.1)
        _calibrate(network, torch.randn(8, 3, *size))
    return network.eval()


def build_network(name: str, arch: str | None, reference: nn.Module) -> nn.Module:
    """Build a network of ``NETWORKS`` in eval mode, with the weights of ``reference``.

    Raises:
        ImportError: If its package is not installed.
        RuntimeError: If the package has no such network.
    """
    network: Any
    weights = reference.state_dict()
    if is_named(arch):
        return _build_named(name, reference)
    if arch is None:
        network = _create_timm(name)
        network.load_state_dict(weights)
    elif name in OWN_TRAIN_FORMS:
        network = build_classifier(_classifier_cfg(arch, branches='merged' if name == 'train-merged' else 'separate'))
        network.load_state_dict(weights)
    elif name in ('deploy', 'tested'):
        network = reparameterize(reference)
    elif name in ('mmpretrain', 'train-mmpretrain'):
        cfg = _classifier_cfg(arch, 'mmpretrain.RepVGG')
        # the head gets its width only from this project's backbone
        cfg['head']['in_channels'] = weights['head.fc.weight'].shape[1]
        network = build_classifier(cfg)
        network.load_state_dict(weights)
        if name == 'mmpretrain':
            network.backbone.switch_to_deploy()
    elif name == 'train-official':
        network = OfficialRepVGG(get_arch(arch), num_classes=NUM_CLASSES)
        network.load_state_dict(from_ours(weights, 'official'))
    else:
        network = _create_timm(f'repvgg_{arch.lower()}')
        network.load_state_dict(from_ours(weights, 'timm'))
        if name == 'timm':
            network = import_module('timm.utils').reparameterize_model(network)
    return network.eval()


def _build_named(name: str, reference: Any) -> nn.Module:
    if name == 'deploy':
        return switch(reference).model
    network = copy.deepcopy(reference)
    if name == 'timm':
        network.model = import_module('timm.utils').reparameterize_model(network.model)
    return network


def make_inputs(batch_size: int, input_size: int) -> Tensor:
    """Make seeded noise ``(N, 3, input_size, input_size)`` with the mean and deviation of normalised images."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch_size, 3, input_size, input_size, generator=generator)


def _classifier_cfg(arch: str, backbone: str = 'mmrepvgg.RepVGG', **options: Any) -> dict[str, Any]:
    return dict(
        type='mmrepvgg.ImageClassifier',
        backbone=dict(type=backbone, arch=arch, out_indices=(3,), **options),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=NUM_CLASSES),
    )


def _create_timm(name: str) -> nn.Module:
    return import_module('timm').create_model(name, num_classes=NUM_CLASSES)


@torch.no_grad()
def _calibrate(network: nn.Module, inputs: Tensor) -> None:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # for the average of all batches, here of one
    network.train()(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
