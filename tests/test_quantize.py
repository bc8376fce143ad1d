"""Checkpoints in, int8 files out: what is decided, what is measured, and what is said."""

import copy
import json
import os
import re
import sys

import pytest
import torch
from int8_source import CONVS, LAYERS, NUM_TEST, NUM_TRAIN, make_config, spoil
from tool_runs import CONFIGS, ROOT, fail_here, run_tool, succeed

from mmrepvgg import compare_layers
from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.quantization.fallback import AccuracyError
from mmrepvgg.quantization.plan import make_plan
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.quantization.trained import Training
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.format import MissingPackageError
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.onnx import ONNX
from mmrepvgg.runtimes.openvino import OPENVINO
from mmrepvgg.runtimes.prepared import normalise

DIGITS = CONFIGS / 'repvgg-a0_digits.py'


@pytest.fixture(scope='module')
def source(digits, tmp_path_factory):
    """A config and a train-form checkpoint, which is right about all its images."""
    checkpoint = digits / 'small.pth'
    return make_config(digits, checkpoint, tmp_path_factory.mktemp('labels')), checkpoint


@pytest.fixture(scope='module')
def spoilt(source, digits, tmp_path_factory):
    """The same of a deploy form that int8 breaks per-tensor in one layer, in three, and in all."""
    found = {}
    for name, layers in (('one', CONVS[2:3]), ('three', CONVS[1:4]), ('all', LAYERS)):
        folder = tmp_path_factory.mktemp('spoilt')
        model = spoil(load_classifier(source[0], digits / 'small_deploy.pth'), layers, 300)
        torch.save(dict(state_dict=model.state_dict(), meta={}), folder / f'{name}.pth')
        found[name] = make_config(digits, folder / f'{name}.pth', folder), folder / f'{name}.pth'
    return found


@pytest.mark.parametrize(('name', 'granularity'), [('net.onnx', 'per-channel'), ('net.xml', 'per-tensor')])
def test_int8_files_of_both_formats(source, digits, tmp_path, name, granularity):
    path = tmp_path / name
    result = quantize_model(*source, path, QuantizationSettings(granularity))
    assert result.was_switched
    assert (sorted(result.int8_layers), result.float_layers) == (sorted(LAYERS), ())
    assert (result.granularity, result.reference) == (granularity, 'float32')
    assert (result.num_images, result.images, result.num_calibration) == (NUM_TEST, 'test', NUM_TRAIN)
    assert result.accuracy_reference == 100
    assert result.accuracy == result.agreement > 85
    assert result.accuracy_all_int8 is None
    layers = compare_layers(*source, path, data=digits / 'data/digits/val/3')
    assert (layers.shows_layers, layers.tolerance, layers.first) == (True, None, None)
    assert set(layers.differences) == {*LAYERS, 'scores'}
    assert all(1e-4 < found.relative < 1 for found in layers.differences.values())
    assert 2.5 < result.size_ratio < 4
    files = [path] if name == 'net.onnx' else [path.with_suffix('.bin'), path]
    assert sorted(tmp_path.iterdir()) == files
    assert sum(file.stat().st_size for file in files) == result.size
    exported = load_exported(path)
    assert exported.metadata == result.metadata
    assert exported.computes_in == exported.metadata.precision == 'int8'
    assert exported.metadata.classes == tuple('0123456789')
    assert (exported.metadata.input_size, exported.metadata.batch_size) == ((32, 32), None)


@pytest.mark.parametrize('name', ['net.onnx', 'net.xml'])
def test_uint8_images_in_probabilities_out_one_batch_size(source, tmp_path, name):
    options = dict(with_preprocess=True, softmax=True, dynamic_batch=False, batch_size=2)
    result = quantize_model(*source, tmp_path / name, QuantizationSettings(eval_samples=0), **options)
    assert (result.accuracy, result.accuracy_reference, result.images) == (None, None, 'train')
    assert result.num_images == result.num_calibration == NUM_TRAIN
    assert result.agreement > 85
    exported = load_exported(tmp_path / name)
    assert exported.metadata.batch_size == 2
    images = torch.cat([images for images, _ in iterate_samples(source[0], 'test', 5)])
    scores = exported(images)
    torch.testing.assert_close(scores.sum(1), torch.ones(5))
    model = load_classifier(*source)
    with torch.no_grad():
        expected = model(normalise(model, images)).softmax(1)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.1)


def test_equalization_is_the_default_per_tensor(source, tmp_path):
    for equalize in (None, False):
        settings = QuantizationSettings('per-tensor', equalize=equalize, eval_samples=0)
        result = quantize_model(*source, tmp_path / 'net.onnx', settings)
        assert (result.num_equalized > 0, result.was_rounded) == (equalize is None, True)


@pytest.mark.parametrize('granularity', ['per-tensor', 'per-channel'])
def test_adaptive_rounding_brings_scores_nearer(source, tmp_path, granularity):
    """And the file has exactly the weights that were rounded: its quantizer rounds them to themselves."""
    images = torch.cat(
        [normalise(load_classifier(*source), images) for images, _ in iterate_samples(source[0], 'test')]
    )
    with torch.no_grad():
        expected = load_classifier(*source)(images)
    errors = {}
    for rounds in (False, True):
        settings = QuantizationSettings(granularity, adaptive_rounding=rounds, equalize=False, eval_samples=0)
        quantize_model(*source, tmp_path / 'net.onnx', settings)
        errors[rounds] = (load_exported(tmp_path / 'net.onnx')(images) - expected).square().mean()
    assert errors[True] < 0.7 * errors[False]


def test_the_layer_that_int8_breaks_stays_float(spoilt, tmp_path):
    settings = QuantizationSettings('per-tensor', max_drop=15, equalize=False, adaptive_rounding=False)
    result = quantize_model(*spoilt['one'], tmp_path / 'net.onnx', settings)
    assert result.float_layers == (CONVS[2],)
    assert sorted(result.int8_layers) == sorted(set(LAYERS) - {CONVS[2]})
    assert result.accuracy_all_int8 < 60
    assert result.accuracy >= 85
    assert not result.was_rounded
    # half of the images chose, the others are reported
    assert (result.num_choosing, result.num_images) == (45, 45)


def test_float_layers_and_those_beside_them_are_not_rounded(spoilt, tmp_path):
    settings = QuantizationSettings('per-tensor', max_drop=15, equalize=False)
    result = quantize_model(*spoilt['three'], tmp_path / 'net.onnx', settings)
    assert set(result.float_layers) <= set(CONVS[1:4])
    assert result.float_layers
    assert not result.was_rounded


def test_layers_are_not_kept_without_need(spoilt, tmp_path):
    result = quantize_model(*spoilt['one'], tmp_path / 'net.onnx', QuantizationSettings('per-tensor', max_drop=15))
    assert (result.float_layers, result.accuracy_all_int8, result.was_rounded) == ((), None, True)


def test_one_test_image_can_not_choose_and_report(source, tmp_path):
    with pytest.raises(ValueError, match='`max_drop` needs at least 2 test images'):
        quantize_model(*source, tmp_path / 'net.onnx', QuantizationSettings(max_drop=1, eval_samples=1))


def test_what_can_not_be_met(spoilt, tmp_path):
    out = tmp_path / 'net.xml'
    out.write_text('precious')
    with pytest.raises(AccuracyError, match=r'within 0 points of float32: 100\.00% in float32, .* nothing was written'):
        quantize_model(*spoilt['all'], out, QuantizationSettings('per-tensor', max_drop=0, equalize=False))
    assert out.read_text() == 'precious'
    assert list(tmp_path.iterdir()) == [out]


def test_given_ranges(source, tmp_path):
    """By ONNX Runtime's quantizer, for OpenVINO too; nothing is calibrated."""
    ranges = dict.fromkeys(CONVS, (0.0, 20.0)) | {CONVS[0]: (-3.0, 3.0)}
    result = quantize_model(*source, tmp_path / 'net.xml', activation_ranges=ranges)
    assert (result.int8_layers, result.float_layers) == (tuple(CONVS), ('head.fc',))
    assert (result.num_calibration, result.reference) == (0, 'float32')
    with pytest.raises(ValueError, match='must name convolutions of the deploy form'):
        quantize_model(*source, tmp_path / 'refused.onnx', activation_ranges={'head.fc': (0, 1)})
    assert not list(tmp_path.glob('refused*'))


TRAINED = Training('per-tensor', {CONVS[0]: (0.0, 1.0)})


class TestPlan:
    def test_defaults(self):
        plan = make_plan(OPENVINO, QuantizationSettings())
        assert (plan.quantizer.name, plan.granularity, plan.ranges, plan.is_trained) == (
            'nncf', 'per-channel', None, False,
        )  # fmt: skip
        assert plan.source is OPENVINO

    def test_training_decides(self):
        plan = make_plan(OPENVINO, QuantizationSettings(), trained=TRAINED)
        assert (plan.quantizer.name, plan.granularity, plan.is_trained) == ('onnxruntime', 'per-tensor', True)
        assert plan.ranges == TRAINED.ranges
        assert plan.source is ONNX
        given = {CONVS[1]: (0.0, 2.0)}
        assert make_plan(ONNX, QuantizationSettings(), trained=TRAINED, ranges=given).ranges == given

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            (dict(granularity='per-channel'), 'must be per-tensor, for which the model was trained, got per-channel'),
            (dict(max_drop=1.0), '`max_drop` needs calibrated ranges, .* leave it out'),
            (dict(equalize=True), '`equalize` changes the activations, .* leave it out'),
            (dict(adaptive_rounding=True), '`adaptive_rounding` changes the activations, .* leave it out'),
            (dict(calibration='percentile'), 'need no `calibration`, .* the `quantizer` .* is onnxruntime; leave out'),
            (dict(quantizer='nncf'), 'need no `calibration`, .* the `quantizer` .* is onnxruntime; leave out both'),
        ],
    )
    def test_what_contradicts_the_training(self, settings, message):
        with pytest.raises(ValueError, match=message):
            make_plan(OPENVINO, QuantizationSettings(**settings), trained=TRAINED)

    def test_what_is_done_before(self):
        def decide(row, granularity, **settings):
            plan = make_plan(row, QuantizationSettings(granularity, **settings))
            return plan.equalizes, plan.rounds_adaptively

        assert decide(ONNX, 'per-tensor') == (True, True)
        assert decide(ONNX, 'per-channel') == (False, True)
        assert decide(ONNX, 'per-channel', equalize=True, adaptive_rounding=False) == (True, False)
        assert decide(OPENVINO, 'per-tensor') == (True, False), "NNCF's grids are its own"
        assert decide(OPENVINO, 'per-tensor', quantizer='onnxruntime', equalize=False) == (False, True)
        trained = make_plan(ONNX, QuantizationSettings(), trained=TRAINED)
        assert (trained.equalizes, trained.rounds_adaptively) == (False, False)


@pytest.mark.parametrize(
    ('name', 'settings', 'message'),
    [
        ('net.pt2', {}, r'int8 files can be ONNX, OpenVINO, .*, got torch\.export'),
        ('net.plan', {}, r'must end in \.onnx'),
        ('net.xml', dict(calibration='entropy'), 'files by nncf must be one of minmax, percentile, got entropy'),
        ('net.onnx', dict(calibration='kl'), "`calibration` must be one of minmax, entropy, percentile, .*, got 'kl'"),
        ('net.onnx', dict(quantizer='nncf'), 'the `quantizer` of ONNX files must be one of onnxruntime, got nncf'),
        (
            'net.onnx', dict(granularity='per-row'),
            "`granularity` must be one of per-tensor, per-channel, got 'per-row'",
        ),
        ('net.onnx', dict(max_drop=-1), '`max_drop` must be points of accuracy, 0 to 100, got -1'),
        ('net.onnx', dict(max_drop=1, eval_samples=0), '`max_drop` needs test images'),
        ('net.onnx', dict(num_samples=0), '`num_samples` must be at least 1'),
        ('net.xml', dict(adaptive_rounding=True), '`adaptive_rounding` needs a `quantizer` .* onnxruntime, got nncf'),
        ('net.onnx', dict(eval_samples=-1), '`eval_samples` must not be negative'),
    ],
)  # fmt: skip
def test_wrong_settings(source, tmp_path, name, settings, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(*source, tmp_path / name, QuantizationSettings(**settings))


def test_test_data_that_are_missing(source, tmp_path):
    cfg = copy.deepcopy(source[0])
    cfg.test_dataloader.dataset.ann_file = str(tmp_path / 'none.txt')
    with pytest.raises(ValueError, match=r"the test data of the config can't be read .* `eval_samples=0` does without"):
        quantize_model(cfg, source[1], tmp_path / 'net.onnx')


def test_a_damaged_checkpoint(source, tmp_path):
    (tmp_path / 'bad.pth').write_bytes(source[1].read_bytes()[:3000])
    with pytest.raises(CheckpointError, match=r'bad\.pth'):
        quantize_model(source[0], tmp_path / 'bad.pth', tmp_path / 'net.onnx')


def test_a_missing_quantizer(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nncf', None)
    with pytest.raises(
        MissingPackageError, match=r'need nncf, not installed here: pip install "mmrepvgg\[quantization\]"'
    ):
        quantize_model(*source, tmp_path / 'net.xml')


def test_what_can_not_be_written_is_told_first(source, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'file/net\.onnx can not be written'):
        quantize_model(source[0], 'none.pth', tmp_path / 'file/net.onnx')


class TestTool:
    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['net.ts'], 'ExecuTorch, got TorchScript'),
            (['net.xml', '--calibration', 'entropy'], 'must be one of minmax, percentile, got entropy'),
            (['net.onnx', '--max-drop', 'nan'], 'must be points of accuracy, 0 to 100, got nan'),
            (['net.onnx', '--batch-size', '2'], '--batch-size goes with --no-dynamic-batch'),
        ],
    )
    def test_wrong_usage_is_told_before_torch_is_imported(self, args, message, tmp_path):
        done = run_tool('quantize', DIGITS, 'none.pth', *args, cwd=tmp_path, without=['torch'])
        assert (done.returncode, done.stdout) == (2, '')
        assert message in done.stderr

    def test_a_missing_package_is_told_before_anything_slow(self, source, tmp_path):
        done = run_tool('quantize', DIGITS, source[1], 'net.xml', cwd=tmp_path, without=['torch', 'nncf'])
        assert done.returncode == 1
        assert done.stderr == (
            'quantize.py: error: int8 OpenVINO files need nncf, not installed here: '
            'pip install "mmrepvgg[quantization]"\n'
        )

    def test_quantize_then_test(self, source, tmp_path):
        cfg, checkpoint = source
        cfg.dump(tmp_path / 'config.py')
        # whoever would report to the network fails
        (tmp_path / 'sitecustomize.py').write_text(
            'import socket\n'
            'def refuse(*args, **kwargs):\n'
            "    open('network.txt', 'a').write(repr(args))\n"
            "    raise OSError('no network here')\n"
            'socket.socket.connect = socket.getaddrinfo = refuse\n'
        )
        path = {'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
        options = ['--num-samples', 30, '--equalize']
        lines = succeed('quantize', 'config.py', checkpoint, 'net.xml', *options, cwd=tmp_path, **path).splitlines()
        assert len(lines) == 5, lines
        assert lines[0].endswith('train form, switched to deploy form')
        assert re.fullmatch(r'rescaled \d+ channels, which leaves the float32 function as it is', lines[1])
        assert 'int8 per-channel, calibrated by minmax on 30 training images; 7 of 7 layers in int8' in lines[2]
        accuracy = float(re.search(rf'on {NUM_TEST} test images: 100\.00% in float32, ([\d.]+)% in this', lines[3])[1])
        assert lines[4] == f'same label as float32: {accuracy:.2f}% of {NUM_TEST} test images'
        report = ['--metrics', 'accuracy', '--out', 'report.json']
        succeed('test', 'config.py', 'net.xml', *report, cwd=tmp_path, **path)
        metrics = json.loads((tmp_path / 'report.json').read_text())['metrics']
        assert metrics['accuracy/top1'] == pytest.approx(accuracy, abs=0.01)
        assert not (tmp_path / 'network.txt').exists()

    def test_failure(self, spoilt, tmp_path):
        cfg, checkpoint = spoilt['all']
        cfg.dump(tmp_path / 'config.py')
        options = ['--granularity', 'per-tensor', '--max-drop', '0', '--no-equalize']
        message = fail_here('quantize', 'config.py', checkpoint, 'net.onnx', *options, cwd=tmp_path)
        assert 'int8 can not keep the top-1 accuracy within 0 points of float32' in message
        assert 'Allow a larger --max-drop, try --granularity per-channel or another --calibration' in message
        assert not (tmp_path / 'net.onnx').exists()
