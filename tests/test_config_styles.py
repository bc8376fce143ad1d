"""Configs as OpenMMLab's users write them: data sets in wrappers, and types as classes instead of names."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmrepvgg import load_config
from mmrepvgg.data.images import list_images
from mmrepvgg.data.layout import DataError, check_data
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.engine import training
from mmrepvgg.engine.testing import evaluate
from mmrepvgg.handoff.listing import read_list
from mmrepvgg.handoff.preprocessed import write_inputs
from mmrepvgg.prediction.predictor import Predictor
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.reparam.comparison import compare_forms
from mmrepvgg.runtimes.export import export_model

NAMES = 'abcdefghij'  # of small_source


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> Path:
    """Two data sets, ``one`` and ``two``, with two images of each class."""
    root = tmp_path_factory.mktemp('wrapped')
    generator = np.random.default_rng(0)
    for part in ('one', 'two'):
        for number, name in enumerate(NAMES):
            (root / part / name).mkdir(parents=True)
            for copy_number in range(2):
                image = generator.integers(0, 256, (32, 32, 3), np.uint8)
                cv2.imwrite(str(root / part / name / f'{part}_{number}_{copy_number}.png'), image)
    return root


def wrap(kind: str, folders: Path, pipeline: list) -> dict[str, Any]:
    one, two = (dict(type='CustomDataset', data_root=str(folders / part), pipeline=pipeline) for part in ('one', 'two'))
    repeated = dict(type='RepeatDataset', dataset=one, times=2)
    concatenated = dict(type='ConcatDataset', datasets=[one, two])
    return {
        'plain': one,
        'repeated': repeated,
        'concatenated': concatenated,
        'a fold': dict(type='mmpretrain.KFoldDataset', dataset=one, num_splits=2, test_mode=True),
        'balanced': dict(type='ClassBalancedDataset', dataset=one, oversample_thr=0.1),
        'nested': dict(type='RepeatDataset', dataset=concatenated, times=2),
    }[kind]


COUNTS = {'plain': 20, 'repeated': 20, 'concatenated': 40, 'a fold': 10, 'balanced': 20, 'nested': 40}


@pytest.mark.parametrize('kind', COUNTS)
def test_images_in_wrappers_are_found_once(small_cfg, folders, tmp_path, kind):
    small_cfg.test_dataloader.dataset = wrap(kind, folders, small_cfg.test_dataloader.dataset.pipeline)
    check_data(small_cfg, ['test_dataloader'])
    batches = list(iterate_samples(small_cfg, 'test', trained=NAMES))
    assert sum(len(images) for images, _ in batches) == COUNTS[kind]
    assert all(labels is not None for _, labels in batches)
    assert write_inputs(small_cfg, tmp_path / 'inputs').num_images == COUNTS[kind]
    assert len(read_list(tmp_path / 'inputs').images) == COUNTS[kind]


@pytest.mark.parametrize('kind', ['concatenated', 'a fold'])
def test_the_whole_path_with_wrapped_data(small_cfg, folders, small_source, tmp_path, kind):
    wrapped = wrap(kind, folders, small_cfg.test_dataloader.dataset.pipeline)
    small_cfg.test_dataloader.dataset = wrapped
    small_cfg.train_dataloader = dict(dataset=wrapped)
    export = export_model(small_cfg, small_source, tmp_path / 'net.ts')
    assert export.metadata.classes == tuple(NAMES)
    (prediction,) = Predictor(small_cfg, tmp_path / 'net.ts').predict([next((folders / 'one/c').iterdir())])
    assert not prediction.error
    done = quantize_model(small_cfg, small_source, tmp_path / 'net.onnx', QuantizationSettings(num_samples=10))
    assert (done.num_images, done.num_calibration) == (COUNTS[kind], 10)


def test_every_part_of_wrapped_data_is_checked(small_cfg, folders):
    small_cfg.test_dataloader.dataset = wrap('concatenated', folders, [])
    small_cfg.test_dataloader.dataset.datasets[1].data_root = str(folders / 'three')
    with pytest.raises(DataError, match='three does not exist'):
        check_data(small_cfg, ['test_dataloader'])


# Every type is a class, as in mmengine's new configs.
NEW_STYLE = """
from mmcv.transforms import LoadImageFromFile, Resize
from mmengine.dataset import ConcatDataset, DefaultSampler
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import CustomDataset, PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ClsDataPreprocessor, GlobalAveragePooling, LinearClsHead
from torch.optim import SGD

from mmrepvgg.models.backbone import RepVGG
from mmrepvgg.models.classifier import ImageClassifier

model = dict(
    type=ImageClassifier,
    backbone=dict(type=RepVGG, arch=dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=128),
)
data_preprocessor = dict(type=ClsDataPreprocessor, mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
pipeline = [dict(type=LoadImageFromFile), dict(type=Resize, scale=32), dict(type=PackInputs)]
part = dict(type=CustomDataset, data_root='FOLDER', pipeline=pipeline)
test_dataloader = dict(batch_size=8, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False), dataset=part)
val_dataloader = test_dataloader
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=ConcatDataset, datasets=[part]),
)
test_evaluator = dict(type=Accuracy)
val_evaluator = test_evaluator
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
default_scope = 'mmpretrain'
"""


def test_the_whole_path_with_types_as_classes(folders, tmp_path):
    (tmp_path / 'config.py').write_text(NEW_STYLE.replace('FOLDER', str(folders / 'one')))

    def load() -> Config:
        return load_config(str(tmp_path / 'config.py'))

    check_data(load(), ['train_dataloader', 'test_dataloader'])
    trained = training.train(load(), str(tmp_path / 'work'), amp=True)
    deployed = tmp_path / 'deploy.pth'
    reparameterize_checkpoint(load(), trained, deployed, data=folders / 'one/a')
    assert set(evaluate(load(), trained, str(tmp_path / 'test'), metrics=['accuracy'])) == {
        'accuracy/top1',
        'accuracy/top5',
    }
    assert compare_forms(load(), trained, deployed).num_different == 0
    assert export_model(load(), trained, tmp_path / 'net.ts').metadata.input_size == (32, 32)
    images = [image for image, _ in list_images([folders / 'one'])]
    found = [Predictor(load(), path).predict(images) for path in (trained, tmp_path / 'net.ts')]
    assert [p.classes[0].name for p in found[0]] == [p.classes[0].name for p in found[1]]
    assert quantize_model(load(), trained, tmp_path / 'net.onnx').num_images == 20
    assert write_inputs(load(), tmp_path / 'inputs').num_images == 20
