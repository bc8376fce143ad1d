"""Checkpoints and exported files behind one interface, that of mmpretrain's classifiers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..checkpoints.errors import CheckpointError
from ..checkpoints.formats import read_weights
from ..data.classes import get_trained_classes, require_single_label
from ..data.layout import get_num_classes
from ..engine.launchers import share_cores
from ..measures.finite import is_finite
from ..models.config_types import get_type_name, is_classifier, require_model
from ..models.fake_quant import set_fake_quantization
from ..reparam.forms import has_own_blocks, load_model
from .loading import load_exported
from .metadata import ExportMetadata
from .table import is_exported


class StackingDataPreprocessor(BaseDataPreprocessor):
    """The data preprocessor of an exported file.

    It computes what mmpretrain's ``ClsDataPreprocessor`` computes for inference, in fewer passes over the images:
    images are stacked as uint8, and normalised in place.

    Args:
        metadata: Description of the file, with its normalisation. Images stay as they are if the file itself
            normalises them.
    """

    def __init__(self, metadata: ExportMetadata):
        super().__init__()
        self.inside = metadata.with_preprocess
        self.to_rgb = metadata.to_rgb
        self.normalise = bool(metadata.mean)
        self.register_buffer('mean', torch.tensor(metadata.mean).view(-1, 1, 1), False)
        self.register_buffer('std', torch.tensor(metadata.std).view(-1, 1, 1), False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Make the batch.

        Args:
            data: Dict with ``inputs``, a list of images ``(C, H, W)`` of one shape or a stack ``(N, C, H, W)`` of
                them, and optionally ``data_samples``.
            training: Not used. The interface has it.

        Returns:
            dict: ``inputs`` ``(N, C, H, W)`` and ``data_samples``.

        Raises:
            ValueError: If the images differ in shape.
        """
        data = self.cast_data(data)
        images = data['inputs']
        if not isinstance(images, Tensor):
            if len({image.shape for image in images}) > 1:
                raise ValueError(
                    'the images of a batch must have one shape for an exported file, got '
                    f'{sorted({tuple(image.shape) for image in images})}; add a crop to the test pipeline'
                )
            images = torch.stack(images)
        if not self.inside:
            images = (images.flip(1) if self.to_rgb else images).to(torch.float32, copy=True)
            if self.normalise:
                images.sub_(self.mean).div_(self.std)
        return dict(inputs=images, data_samples=data.get('data_samples'))


class ExportedClassifier(BaseClassifier):
    """An exported file as a classifier of mmpretrain, for its Runner and its inferencer. It can't be trained.

    Args:
        path: An exported file.
        num_classes: Number of classes that the file must have. Default: any.
        num_threads: Number of CPU threads. Default: that of the runtime; in a run of several processes, this process's
            share of the cores of its machine.
        data_preprocessor: Not used. The Runner gives that of the config, but the file itself says how to normalise.

    Raises:
        ValueError: If the file has another number of classes, an unknown ending or no metadata.
        FileNotFoundError: If there is no such file.
        MissingPackageError: If the runtime is not installed.
        CheckpointError: If the file is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        num_classes: int | None = None,
        num_threads: int | None = None,
        data_preprocessor: Any = None,
    ):
        exported = load_exported(path, num_threads=num_threads or share_cores())
        if num_classes not in (None, exported.metadata.num_classes):
            raise ValueError(
                f'{path} has {exported.metadata.num_classes} classes, and the config has {num_classes}; give the '
                'config from which it was exported'
            )
        super().__init__(data_preprocessor=StackingDataPreprocessor(exported.metadata))
        self.exported = exported
        self._dataset_meta = {'classes': exported.metadata.classes} if exported.metadata.classes else {}

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample]:
        """Run the file.

        Args:
            inputs: Images ``(N, 3, H, W)`` from the data preprocessor.
            data_samples: Data samples that get the predictions. Default: new ones.
            mode: ``'tensor'`` for the output of the file ``(N, classes)``, or ``'predict'`` for data samples with
                ``pred_score`` and ``pred_label``.

        Raises:
            ValueError: If the mode is another, or if the file does not take images of this shape.
        CheckpointError: If a score is not finite.
        """
        if mode not in ('tensor', 'predict'):
            raise ValueError(f"`mode` must be 'tensor' or 'predict', since the file can't be trained, got {mode!r}")
        return self._score(inputs) if mode == 'tensor' else self.predict(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None) -> list[DataSample]:
        """Predict images, as mmpretrain's classifiers do.

        Args:
            inputs: Images ``(N, 3, H, W)`` from the data preprocessor.
            data_samples: Data samples that get the predictions. Default: new ones.

        Returns:
            list[DataSample]: For each image the probabilities ``(classes,)`` and the label ``(1,)``.
        """
        scores = self._score(inputs)
        if not self.exported.metadata.softmax:
            scores = scores.softmax(1)
        labels = scores.argmax(1, keepdim=True)
        samples = data_samples or [DataSample() for _ in scores]
        return [
            sample.set_pred_score(score).set_pred_label(label)
            for sample, score, label in zip(samples, scores, labels, strict=True)
        ]

    def _score(self, inputs: Tensor) -> Tensor:
        scores = self.exported(inputs)
        if not is_finite(scores):
            raise CheckpointError(
                f'{self.exported.path} gives scores that are NaN or infinite: its weights are so, or its precision '
                f'({self.exported.computes_in}) has no number that large; export again, in fp32'
            )
        return scores


def make_exported_config(cfg: Config, path: str | Path) -> dict[str, Any]:
    """The config of an exported file as a model, with which :func:`mmrepvgg.evaluate` tests it.

    Args:
        cfg: The config from which the file was exported.
        path: The exported file.

    Raises:
        ValueError: If the model of ``cfg`` is no classifier, or gives an image several labels.
    """
    require_model(cfg)
    if not is_classifier(cfg.model):
        raise ValueError(
            f'an exported file takes the place of a classifier, got a config of {get_type_name(cfg.model.type)}; give '
            'the config from which it was exported'
        )
    require_single_label(cfg)
    return dict(type='mmrepvgg.ExportedClassifier', path=str(path), num_classes=get_num_classes(cfg))


def make_tested(cfg: Config, path: str | Path) -> dict[str, Any] | str | Path:
    """What :func:`mmrepvgg.evaluate` tests of a file: an exported file, or weights.

    Args:
        cfg: The config.
        path: An exported file, or a checkpoint. It must have the form of the config, unless that is of a classifier
            without blocks of this project.

    Raises:
        ValueError: If the config has no model, or as :func:`make_exported_config` does.
    """
    require_model(cfg)
    if is_exported(path):
        return make_exported_config(cfg, path)
    if not is_classifier(cfg.model) or has_own_blocks(cfg):
        return path
    parts = {name: cfg[name] for name in ('model', 'data_preprocessor', 'default_scope') if name in cfg}
    return dict(type='mmrepvgg.build_loaded', path=str(path), config=parts)


def build_loaded(path: str, config: dict[str, Any], data_preprocessor: Any = None) -> nn.Module:
    """A classifier with its weights, for mmengine's Runner. The data preprocessor that this gives is in ``config``."""
    return load_classifier(Config(config), path)


def load_classifier(cfg: Config, path: str | Path, *, num_threads: int | None = None) -> nn.Module:
    """Load a checkpoint or an exported file as a classifier in eval mode.

    The result has the interface of mmpretrain's classifiers (``test_step``, ``predict``, ``data_preprocessor``), and
    mmpretrain's ``ImageClassificationInferencer`` takes it. An exported file has its own normalisation and classes;
    it takes only the test pipeline from ``cfg``.

    Args:
        cfg: The train config or its deploy twin.
        path: A checkpoint (.pth, .pt) in either form, or an exported file.
        num_threads: Number of CPU threads. For a checkpoint this sets the threads of the whole process. Default: that
            of PyTorch, or of the runtime.

    Raises:
        ValueError: If an exported file has another number of classes than ``cfg``, or no metadata.
        FileNotFoundError: If there is no such file.
        MissingPackageError: If the runtime of an exported file is not installed.
        CheckpointError: If the file is damaged, or if a checkpoint does not fit.
    """
    model: Any
    if is_exported(path):
        model = ExportedClassifier(path, get_num_classes(cfg), num_threads)
    else:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        checkpoint = read_weights(path)
        model = load_model(cfg, checkpoint).model
        # so that a checkpoint of quantization-aware training predicts what its int8 file will predict
        set_fake_quantization(model, enabled=True)
        names = get_trained_classes(checkpoint.meta)
        model._dataset_meta = {'classes': names} if names else {}
    model._config = cfg
    return model.eval()
