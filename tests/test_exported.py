"""Exported files behind mmpretrain's classifier interface."""

import json

import cv2
import pytest
import torch
from file_kinds import RUNNABLE, list_full_options
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer
from mmpretrain.models.utils.data_preprocessor import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from tool_runs import run_tool, succeed

from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.engine.testing import evaluate
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.runtimes.classifier import (
    ExportedClassifier,
    StackingDataPreprocessor,
    load_classifier,
    make_exported_config,
)
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.prepared import prepare_model
from mmrepvgg.runtimes.table import find_format


def make_batch(num=3):
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(256, (num, 3, 32, 32), generator=generator).to(torch.uint8)
    return dict(inputs=list(images), data_samples=[DataSample().set_gt_label(i % 10) for i in range(num)])


def read_predictions(samples):
    return torch.stack([s.pred_score for s in samples]), torch.cat([s.pred_label for s in samples])


@pytest.fixture
def data_root(tmp_path):
    """7 images in the folders of 10 classes."""
    for i in range(10):
        (tmp_path / 'data' / str(i)).mkdir(parents=True)
    for i, image in enumerate(make_batch(7)['inputs']):
        cv2.imwrite(str(tmp_path / 'data' / str(i) / f'{i}.png'), image.permute(1, 2, 0).numpy())
    return tmp_path / 'data'


@pytest.fixture
def runner_cfg(small_cfg, data_root):
    """``small_cfg`` with what the Runner needs; batches of 3 leave a tail of 1."""
    dataset = dict(small_cfg.test_dataloader.dataset, data_root=str(data_root))
    sampler = dict(type='DefaultSampler', shuffle=False)
    small_cfg.merge_from_dict(
        dict(
            test_dataloader=dict(batch_size=3, num_workers=0, sampler=sampler, dataset=dataset),
            test_cfg=dict(),
            test_evaluator=dict(type='Accuracy'),
        )
    )
    return small_cfg


@pytest.mark.parametrize('suffix', RUNNABLE)
@pytest.mark.parametrize('is_full', [False, True], ids=['plain', 'full'])
def test_predictions_are_the_checkpoints(small_cfg, small_source, export_once, suffix, is_full):
    options = list_full_options(suffix) if is_full else {}
    model = load_classifier(small_cfg, export_once(small_cfg, suffix, **options)[1])
    assert not model.training
    samples = model.test_step(make_batch())
    scores, labels = read_predictions(samples)
    expected = read_predictions(load_classifier(small_cfg, small_source).test_step(make_batch()))
    torch.testing.assert_close(scores, expected[0], rtol=0, atol=5e-2 if options else 1e-5)
    assert labels.tolist() == expected[1].tolist()
    assert [sample.gt_label.item() for sample in samples] == [0, 1, 2]


def test_checkpoints_of_either_form_with_either_config(small_cfg, small_source, tmp_path):
    reparameterize_checkpoint(small_cfg, small_source, tmp_path / 'deploy.pth')
    outputs = []
    for deploy in (False, True):
        small_cfg.model.backbone.deploy = deploy
        for path in (small_source, tmp_path / 'deploy.pth'):
            outputs.append(read_predictions(load_classifier(small_cfg, path).test_step(make_batch()))[0])
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', ['.ts', '.onnx', 'checkpoint'])
def test_mmpretrains_inferencer(small_cfg, small_source, export_once, data_root, name):
    path = small_source if name == 'checkpoint' else export_once(small_cfg, name)[1]
    inferencer = ImageClassificationInferencer(load_classifier(small_cfg, path))
    files = sorted(map(str, data_root.rglob('*.png')))
    results = inferencer(files, batch_size=3)
    expected = read_predictions(load_classifier(small_cfg, small_source).test_step(make_batch(7)))
    assert [result['pred_label'] for result in results] == expected[1].tolist()
    assert [result['pred_class'] for result in results] == ['abcdefghij'[label] for label in expected[1]]
    torch.testing.assert_close(torch.tensor([r['pred_score'] for r in results]), expected[0].amax(1), rtol=0, atol=1e-5)


def test_the_preprocessor_computes_what_mmpretrains_does(small_cfg, export_once):
    metadata = load_exported(export_once(small_cfg, '.ts')[1]).metadata
    batch = make_batch()
    before = [image.clone() for image in batch['inputs']]
    ours = StackingDataPreprocessor(metadata)(batch)
    theirs = ClsDataPreprocessor(mean=metadata.mean, std=metadata.std, to_rgb=True)(make_batch())
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert len(ours['data_samples']) == 3
    # the images, which a data set may keep in memory, are as they were
    assert all(map(torch.equal, batch['inputs'], before))
    stacked = torch.stack(before).float()
    assert torch.equal(StackingDataPreprocessor(metadata)(dict(inputs=stacked))['inputs'], theirs['inputs'])
    assert torch.equal(stacked, torch.stack(before).float())


def test_the_runner_gives_the_same_metrics_and_record(runner_cfg, small_source, export_once, tmp_path):
    plain = Config(dict(runner_cfg))
    exported = make_exported_config(plain, export_once(plain, '.ts')[1])
    files = {'checkpoint': small_source, 'exported': exported}
    found = {}
    for name, source in files.items():
        out = tmp_path / f'{name}.json'
        evaluate(Config(dict(runner_cfg)), source, str(tmp_path / 'work'), metrics=['accuracy', 'f1-score'], out=out)
        found[name] = json.loads(out.read_text())
    assert found['exported']['metrics'] == found['checkpoint']['metrics']
    assert {'accuracy/top1', 'accuracy/top5', 'single-label/f1-score'} <= set(found['exported']['metrics'])
    for ours, theirs in zip(*(found[name]['predictions'] for name in files), strict=True):
        assert ours.pop('score') == pytest.approx(theirs.pop('score'), abs=1e-5)
        assert ours == theirs
    assert len(found['exported']['predictions']) == 7


def test_processes_share_the_cores(small_cfg, export_once, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr('mmrepvgg.runtimes.classifier.share_cores', lambda: 3)
    try:
        load_classifier(small_cfg, export_once(small_cfg, '.ts')[1])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_tool_tests_an_exported_file(runner_cfg, export_once, tmp_path):
    path = export_once(runner_cfg, '.onnx')[1]
    runner_cfg.dump(tmp_path / 'config.py')
    output = succeed('test', 'config.py', path, '--metrics', 'accuracy', '--out', 'out.json', cwd=tmp_path)
    top1 = json.loads((tmp_path / 'out.json').read_text())['metrics']['accuracy/top1']
    assert output.splitlines()[-2] == f'accuracy/top1: {top1:.4f}'
    done = run_tool('test', 'config.py', path, cwd=tmp_path, without=['torch', 'onnxruntime'])
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == (
        'test.py: error: ONNX files need onnxruntime, not installed here: pip install "mmrepvgg[onnx]"\n'
    )


def test_what_does_not_fit(runner_cfg, export_once, tmp_path):
    path = export_once(runner_cfg, '.ts')[1]
    with pytest.raises(ValueError, match='takes the place of a classifier, got a config of UNet'):
        make_exported_config(Config(dict(model=dict(type='UNet'))), path)
    model = load_classifier(runner_cfg, path)
    with pytest.raises(ValueError, match="`mode` must be 'tensor' or 'predict'.*got 'loss'"):
        model(torch.zeros(1, 3, 32, 32), mode='loss')
    batch = make_batch()
    batch['inputs'][1] = batch['inputs'][1][:, :16]
    with pytest.raises(ValueError, match=r'must have one shape .* \[\(3, 16, 32\), \(3, 32, 32\)\]'):
        model.test_step(batch)
    with pytest.raises(ValueError, match=r'takes images of the shape \(N, 3, 32, 32\), got \(1, 3, 48, 48\)'):
        model.test_step(dict(inputs=torch.zeros(1, 3, 48, 48)))
    with pytest.raises(ValueError, match=r'`num_threads` must be at least 1, got 0'):
        load_exported(path, num_threads=0)
    with pytest.raises(ValueError, match='has 10 classes, and the config has 5'):
        ExportedClassifier(path, num_classes=5)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('suffix', ['.onnx', '.xml', '.pt2', '.ts', '.safetensors'])
def test_a_file_with_weights_that_are_not_finite_is_not_tested(runner_cfg, small_source, tmp_path, suffix, value):
    row, path = find_format(f'net{suffix}'), tmp_path / f'net{suffix}'
    options = dict(precision='fp32', with_preprocess=False, softmax=False, ema=False)
    prepared = prepare_model(
        runner_cfg, small_source, input_size=(32, 32), batch_size=None, dynamic_size=row.any_size, **options
    )
    prepared.deployed.backbone.stage_2[0].branch_reparam.weight.data.view(-1)[5] = value
    # as the export does, but for its checks
    row.write(prepared.deployed, path, prepared.metadata, model_cfg=runner_cfg.model.to_dict())
    with pytest.raises(CheckpointError, match=rf'net\{suffix}.* NaN or infinite.*; export again'):
        evaluate(runner_cfg, make_exported_config(runner_cfg, path), str(tmp_path / 'work'))
    if suffix != '.xml':
        batch = make_batch()
        model = load_classifier(runner_cfg, path)
        with pytest.raises(CheckpointError, match='gives scores that are NaN or infinite'):
            model(model.data_preprocessor(batch)['inputs'])
