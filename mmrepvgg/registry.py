"""The registries of scope ``mmrepvgg``: children of mmpretrain's.

mmengine imports this module by itself when a config names the scope (``type='mmrepvgg.RepVGG'``). The import registers
all classes, and lets torch load a Runner's checkpoints safely.
"""

from collections.abc import Mapping
from typing import Any

from . import mmcv_installed  # noqa: F401

# isort: split
from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain
from torch import nn

from .checkpoints.safe_globals import allow_runner_checkpoints
from .data.class_folders import CustomDataset
from .data.damaged import SkipDamaged
from .data.hue import mend_hue
from .data.imagenet import ImageNet
from .data.reading import LoadImageFromFile
from .data.resizing import RandomResizedCrop, ResizeEdge
from .data.shards import ShardedImages
from .engine.amp import AmpOptimWrapper, CPUAmpOptimWrapper
from .engine.calibration import CalibrateInsertedNormsHook
from .engine.compilation import CompileHook
from .engine.custom_l2 import CustomL2Hook
from .engine.hooks import ChannelsLastHook, SkippedImagesHook
from .engine.logs import StepLoggerHook
from .engine.metrics import PredictionRecord
from .engine.quantization import QuantizationAwareHook
from .models.backbone import RepVGG
from .models.classifier import ImageClassifier
from .models.heads import AuxiliaryClsHead
from .runtimes.classifier import ExportedClassifier, build_loaded

SCOPE = 'mmrepvgg'

# The locations are mmpretrain's, since a look-up that goes on to the parent does not import the parent's locations.
MODELS = Registry('model', parent=mmpretrain.MODELS, scope=SCOPE, locations=['mmpretrain.models'])
DATASETS = Registry('dataset', parent=mmpretrain.DATASETS, scope=SCOPE, locations=['mmpretrain.datasets'])
TRANSFORMS = Registry(
    'transform', parent=mmpretrain.TRANSFORMS, scope=SCOPE, locations=['mmpretrain.datasets.transforms']
)
HOOKS = Registry('hook', parent=mmpretrain.HOOKS, scope=SCOPE, locations=['mmpretrain.engine'])
METRICS = Registry('metric', parent=mmpretrain.METRICS, scope=SCOPE, locations=['mmpretrain.evaluation'])
OPTIM_WRAPPERS = Registry(
    'optimizer_wrapper', parent=mmpretrain.OPTIM_WRAPPERS, scope=SCOPE, locations=['mmpretrain.engine']
)

# The classes are registered here and not by decorators, so that they import nothing from higher rooms. Other registries
# (those of mmdet, mmseg, mmengine) find the same names as attributes of the package.
for _registry, _members in {
    MODELS: (RepVGG, ImageClassifier, AuxiliaryClsHead, ExportedClassifier, build_loaded),
    DATASETS: (CustomDataset, ImageNet, ShardedImages, SkipDamaged),
    TRANSFORMS: (LoadImageFromFile, RandomResizedCrop, ResizeEdge),
    HOOKS: (
        CalibrateInsertedNormsHook,
        ChannelsLastHook,
        CompileHook,
        CustomL2Hook,
        QuantizationAwareHook,
        SkippedImagesHook,
        StepLoggerHook,
    ),
    METRICS: (PredictionRecord,),
    OPTIM_WRAPPERS: (AmpOptimWrapper, CPUAmpOptimWrapper),
}.items():
    for _member in _members:
        _registry.register_module(module=_member)

allow_runner_checkpoints()
mend_hue()


def build_backbone(cfg: Mapping[str, Any]) -> nn.Module:
    """Build a backbone from its config. ``RepVGG`` without a scope means this project's class, in any current scope.

    Args:
        cfg: Config ``dict(type='RepVGG', arch='A0', ...)``, or that of any other backbone of mmpretrain.

    Raises:
        TypeError: If ``cfg`` is no dict, or an argument of the backbone has a wrong type.
        ValueError: If an argument of the backbone is out of range.
        KeyError: If ``cfg`` has no type, or no backbone has this type.
    """
    if not isinstance(cfg, Mapping):
        raise TypeError(f'cfg must be a dict with a type, got {type(cfg).__name__}')
    # The scope holds for the parts, too: an ImageClassifier builds its backbone and its head itself.
    return MODELS.build({**cfg, '_scope_': SCOPE})


def build_classifier(cfg: Mapping[str, Any]) -> nn.Module:
    """Build a classifier from its config. Types without a scope mean this project's classes, in any current scope.

    Args:
        cfg: Config ``dict(type='ImageClassifier', backbone=dict(type='RepVGG', arch='A0'), neck=..., head=...)``.

    Raises:
        TypeError: If ``cfg`` is no dict, or an argument in it has a wrong type.
        ValueError: If an argument in it is out of range.
        KeyError: If ``cfg`` has no type, or a type in it is unknown.
    """
    return build_backbone(cfg)
