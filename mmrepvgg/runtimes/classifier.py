"""Checkpoints and exported files alike behind mmpretrain's classifier interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..checkpoints.loading import load_weights
from ..checkpoints.reading import read_checkpoint
from ..data.classes import get_trained_classes, require_single_label
from ..data.layout import get_num_classes
from ..models.building import build_model
from ..models.config_types import get_type_name
from ..models.fake_quant import set_fake_quantization
from .loading import load_exported
from .metadata import ExportMetadata
from .table import is_exported


class StackingDataPreprocessor(BaseDataPreprocessor):
    """What mmpretrain's ``ClsDataPreprocessor`` computes for inference, in fewer passes over the images.

    Images are stacked as uint8, and normalised in place.

    Args:
        metadata: Says how to normalise. With preprocessing inside the file, images stay as they are.
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
            data: ``inputs``, images ``(C, H, W)`` of one shape or a stack of them, and maybe ``data_samples``.
            training: For the interface only.

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
        num_classes: What the file must have, if given.
        num_threads: CPU threads; the runtime's default if None.
        data_preprocessor: Not used: the Runner hands on the config's, and the file itself says how to normalise.

    Raises:
        ValueError: If the number of classes is another.
        CheckpointError: If the file is damaged, and whatever else :func:`load_exported` raises.
    """

    def __init__(
        self,
        path: str | Path,
        num_classes: int | None = None,
        num_threads: int | None = None,
        data_preprocessor: Any = None,
    ):
        exported = load_exported(path, num_threads=num_threads)
        if num_classes not in (None, exported.metadata.num_classes):
            raise ValueError(
                f'{path} has {exported.metadata.num_classes} classes, and the config {num_classes}; give the config '
                'from which it was exported'
            )
        super().__init__(data_preprocessor=StackingDataPreprocessor(exported.metadata))
        self.exported = exported
        self._dataset_meta = {'classes': exported.metadata.classes} if exported.metadata.classes else {}

    def forward(
        self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | list[DataSample]:
        """Run the file.

        Args:
            inputs: ``(N, 3, H, W)`` of the data preprocessor.
            data_samples: Where predictions are set; new ones if None.
            mode: ``'tensor'`` gives the file's output ``(N, classes)``, ``'predict'`` data samples with
                ``pred_score`` and ``pred_label``.

        Raises:
            ValueError: For another mode, or a shape that the file does not take.
        """
        if mode not in ('tensor', 'predict'):
            raise ValueError(f"mode must be 'tensor' or 'predict', an exported file can not be trained, got {mode!r}")
        return self.exported(inputs) if mode == 'tensor' else self.predict(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples: Sequence[DataSample] | None = None) -> list[DataSample]:
        """As mmpretrain's classifiers': probabilities ``(classes,)`` and label ``(1,)`` in each data sample."""
        scores = self.exported(inputs)
        if not self.exported.metadata.softmax:
            scores = scores.softmax(1)
        labels = scores.argmax(1, keepdim=True)
        samples = data_samples or [DataSample() for _ in scores]
        return [
            sample.set_pred_score(score).set_pred_label(label)
            for sample, score, label in zip(samples, scores, labels, strict=True)
        ]


def make_exported_config(cfg: Config, path: str | Path) -> dict[str, Any]:
    """The config of an exported file as a model, with which :func:`mmrepvgg.evaluate` tests it.

    Args:
        cfg: The config from which the file was exported.
        path: The exported file.

    Raises:
        ValueError: If the model of ``cfg`` is no classifier, or gives an image several labels.
    """
    if 'head' not in cfg.model:
        raise ValueError(
            f'an exported file takes the place of a classifier, got a config of {get_type_name(cfg.model.type)}; give '
            'the config from which it was exported'
        )
    require_single_label(cfg)
    return dict(type='mmrepvgg.ExportedClassifier', path=str(path), num_classes=get_num_classes(cfg))


def load_classifier(cfg: Config, path: str | Path) -> nn.Module:
    """The model of ``cfg`` with the weights of a checkpoint in either form, or an exported file in its place.

    The result has mmpretrain's classifier interface (``test_step``, ``predict``, ``data_preprocessor``) and can be
    given to its ``ImageClassificationInferencer``. An exported file brings its own normalisation and classes; of
    ``cfg`` the test pipeline matters.

    Args:
        cfg: The train config or its deploy twin.
        path: A checkpoint (.pth, .pt), or an exported file.

    Raises:
        CheckpointError: If a checkpoint can't be read or does not fit; for exported files see :func:`load_exported`.
    """
    model: Any
    if is_exported(path):
        model = ExportedClassifier(path, get_num_classes(cfg))
    else:
        checkpoint = read_checkpoint(path)
        model = build_model(cfg, deploy=checkpoint.is_deploy_form)
        load_weights(model, checkpoint)
        # a checkpoint of quantization-aware training says what its int8 file will say
        set_fake_quantization(model, enabled=True)
        names = get_trained_classes(checkpoint.meta)
        model._dataset_meta = {'classes': names} if names else {}
    model._config = cfg
    return model.eval()
