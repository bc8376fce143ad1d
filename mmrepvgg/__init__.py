"""RepVGG for OpenMMLab: train with branches, ship a plain stack of 3x3 convolutions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'

# The public names and their modules. A name is imported on first use, so that importing the package is fast. mmengine
# finds 'mmrepvgg.<name>' in a config of any scope here, too. The block for type checkers below has the same names.
_PUBLIC = {
    # networks
    'RepVGG': 'models.backbone',
    'RepVGGBlock': 'models.blocks',
    'QARepVGGBlock': 'models.qarepvgg',
    'ImageClassifier': 'models.classifier',
    'AuxiliaryClsHead': 'models.heads',
    'build_backbone': 'registry',
    'build_classifier': 'registry',
    'register_models': 'zoo.hub',
    'load_config': 'zoo.configs',
    'load_model_config': 'zoo.named_models',
    'base_configs': 'zoo.configs',
    'new_project': 'own_data.project',
    # the switch, and checkpoints
    'reparameterize': 'reparam.switch',
    'reparameterize_checkpoint': 'reparam.checkpoint',
    'compare_forms': 'reparam.comparison',
    'compare_layers': 'runtimes.layers',
    'equalize': 'equalization.equalize',
    'convert_checkpoint': 'checkpoints.convert',
    'clip_norm_scales': 'models.norm_scales',
    # training and testing
    'train': 'engine.training',
    'evaluate': 'engine.testing',
    'CustomDataset': 'data.class_folders',
    'ImageNet': 'data.imagenet',
    'SkipDamaged': 'data.damaged',
    'LoadImageFromFile': 'data.reading',
    'RandomResizedCrop': 'data.resizing',
    'ResizeEdge': 'data.resizing',
    'ShardedImages': 'data.shards',
    'write_shards': 'data.shard_writing',
    'prepare_digits': 'data.digits',
    'AmpOptimWrapper': 'engine.amp',
    'CPUAmpOptimWrapper': 'engine.amp',
    'CalibrateInsertedNormsHook': 'engine.calibration',
    'ChannelsLastHook': 'engine.hooks',
    'CompileHook': 'engine.compilation',
    'CustomL2Hook': 'engine.custom_l2',
    'FSDPStrategy': 'engine.sharding',
    'PredictionRecord': 'engine.metrics',
    'QuantizationAwareHook': 'engine.quantization',
    'StepLoggerHook': 'engine.logs',
    'SkippedImagesHook': 'engine.hooks',
    'get_activation_ranges': 'models.fake_quant',
    # files for runtimes, and what uses them
    'export_model': 'runtimes.export',
    'fuse_onnx': 'runtimes.fuse',
    'load_exported': 'runtimes.loading',
    'load_classifier': 'runtimes.classifier',
    'ExportedClassifier': 'runtimes.classifier',
    'QuantizationSettings': 'quantization.settings',
    'quantize_model': 'quantization.quantize',
    'analyze': 'quantization.analysis.analyze',
    'Predictor': 'prediction.predictor',
    'predict_many': 'prediction.many',
    'write_report': 'report.writing',
    'serve_demo': 'demo.serving',
    'write_static_page': 'demo.static',
    'write_inputs': 'handoff.preprocessed',
    'score_outputs': 'handoff.scoring',
}

__all__ = ['__version__', *_PUBLIC]

if TYPE_CHECKING:
    from .checkpoints.convert import convert_checkpoint as convert_checkpoint
    from .data.class_folders import CustomDataset as CustomDataset
    from .data.damaged import SkipDamaged as SkipDamaged
    from .data.digits import prepare_digits as prepare_digits
    from .data.imagenet import ImageNet as ImageNet
    from .data.reading import LoadImageFromFile as LoadImageFromFile
    from .data.resizing import RandomResizedCrop as RandomResizedCrop
    from .data.resizing import ResizeEdge as ResizeEdge
    from .data.shard_writing import write_shards as write_shards
    from .data.shards import ShardedImages as ShardedImages
    from .demo.serving import serve_demo as serve_demo
    from .demo.static import write_static_page as write_static_page
    from .engine.amp import AmpOptimWrapper as AmpOptimWrapper
    from .engine.amp import CPUAmpOptimWrapper as CPUAmpOptimWrapper
    from .engine.calibration import CalibrateInsertedNormsHook as CalibrateInsertedNormsHook
    from .engine.compilation import CompileHook as CompileHook
    from .engine.custom_l2 import CustomL2Hook as CustomL2Hook
    from .engine.hooks import ChannelsLastHook as ChannelsLastHook
    from .engine.hooks import SkippedImagesHook as SkippedImagesHook
    from .engine.logs import StepLoggerHook as StepLoggerHook
    from .engine.metrics import PredictionRecord as PredictionRecord
    from .engine.quantization import QuantizationAwareHook as QuantizationAwareHook
    from .engine.sharding import FSDPStrategy as FSDPStrategy
    from .engine.testing import evaluate as evaluate
    from .engine.training import train as train
    from .equalization.equalize import equalize as equalize
    from .handoff.preprocessed import write_inputs as write_inputs
    from .handoff.scoring import score_outputs as score_outputs
    from .models.backbone import RepVGG as RepVGG
    from .models.blocks import RepVGGBlock as RepVGGBlock
    from .models.classifier import ImageClassifier as ImageClassifier
    from .models.fake_quant import get_activation_ranges as get_activation_ranges
    from .models.heads import AuxiliaryClsHead as AuxiliaryClsHead
    from .models.norm_scales import clip_norm_scales as clip_norm_scales
    from .models.qarepvgg import QARepVGGBlock as QARepVGGBlock
    from .own_data.project import new_project as new_project
    from .prediction.many import predict_many as predict_many
    from .prediction.predictor import Predictor as Predictor
    from .quantization.analysis.analyze import analyze as analyze
    from .quantization.quantize import quantize_model as quantize_model
    from .quantization.settings import QuantizationSettings as QuantizationSettings
    from .registry import build_backbone as build_backbone
    from .registry import build_classifier as build_classifier
    from .reparam.checkpoint import reparameterize_checkpoint as reparameterize_checkpoint
    from .reparam.comparison import compare_forms as compare_forms
    from .reparam.switch import reparameterize as reparameterize
    from .report.writing import write_report as write_report
    from .runtimes.classifier import ExportedClassifier as ExportedClassifier
    from .runtimes.classifier import load_classifier as load_classifier
    from .runtimes.export import export_model as export_model
    from .runtimes.fuse import fuse_onnx as fuse_onnx
    from .runtimes.layers import compare_layers as compare_layers
    from .runtimes.loading import load_exported as load_exported
    from .zoo.configs import base_configs as base_configs
    from .zoo.configs import load_config as load_config
    from .zoo.hub import register_models as register_models
    from .zoo.named_models import load_model_config as load_model_config
else:  # with this function, a type checker would take any name

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        import_module(f'{__name__}.mmcv_installed')
        return getattr(import_module(f'{__name__}.{_PUBLIC[name]}'), name)


def __dir__() -> list[str]:
    return sorted(__all__)
