"""RepVGG for OpenMMLab: train with branches, ship a plain stack of 3x3 convolutions."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__version__ = '0.1.0'

if find_spec('mmcv') is None:
    raise ImportError(
        'mmrepvgg needs mmcv, and none is installed: pip install "mmcv-lite>=2.1,<2.3" (or mmcv itself; '
        "never both, they are two builds of one package and overwrite each other's files)"
    )

# Where the public names live. They are resolved on first use, so that importing the package costs nothing;
# mmengine resolves 'mmrepvgg.<name>' in a config of any scope here, too.
_PUBLIC = {
    'RepVGG': 'models.backbone',
    'RepVGGBlock': 'models.blocks',
    'QARepVGGBlock': 'models.qarepvgg',
    'ImageClassifier': 'models.classifier',
    'AuxiliaryClsHead': 'models.heads',
    'build_backbone': 'registry',
    'build_classifier': 'registry',
    'reparameterize': 'reparam.switch',
    'ExportedClassifier': 'runtimes.classifier',
    'load_classifier': 'runtimes.classifier',
    'register_models': 'zoo.hub',
    'ImageNet': 'data.imagenet',
    'AmpOptimWrapper': 'engine.amp',
    'CPUAmpOptimWrapper': 'engine.amp',
    'CalibrateInsertedNormsHook': 'engine.calibration',
    'ChannelsLastHook': 'engine.hooks',
    'CustomL2Hook': 'engine.custom_l2',
    'clip_norm_scales': 'models.norm_scales',
    'PredictionRecord': 'engine.metrics',
    'QuantizationAwareHook': 'engine.quantization',
    'get_activation_ranges': 'models.fake_quant',
}

__all__ = ['__version__', *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_PUBLIC[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
