"""Checkpoints in, int8 files out, and layers back to float32 where that costs too much."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from onnx import numpy_helper
from signal_stack import has_signal_stack
from small_classifier import SMALL_CLASSIFIER

from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.data.digits import prepare_digits
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.models.building import build_model
from mmrepvgg.quantization.fallback import AccuracyError, find_float_layers
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.format import MissingPackageError
from mmrepvgg.runtimes.loading import load_exported

ROOT = Path(__file__).parent.parent
DIGITS = str(ROOT / 'configs' / 'repvgg' / 'repvgg-a0_digits.py')
CONVS = ['backbone.stem', *(f'backbone.stage_{stage}.0' for stage in (1, 2, 3, 4))]
LAYERS = [*CONVS, 'head.fc']


def find_module(layer):
    return f'{layer}.branch_reparam' if layer in CONVS else layer


NUM_TEST = 120
QUICK = QuantizationSettings(num_samples=40)


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    prepare_digits(root)
    return root


def make_cfg(source: Config, digits: Path) -> Config:
    """``source`` without SE layers, on some of the digits."""
    cfg = copy.deepcopy(source)
    cfg.model.backbone.arch.pop('se_cfg', None)
    pipeline = cfg.test_dataloader.dataset.pipeline
    for split, folder in (('train', 'train'), ('test', 'val')):
        cfg[f'{split}_dataloader'] = dict(
            batch_size=32,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CustomDataset', data_root=str(digits), ann_file=f'{split}.txt', data_prefix=folder,
                pipeline=pipeline,
            ),
        )  # fmt: skip
    cfg.test_evaluator = dict(type='Accuracy', topk=(1,))
    cfg.test_cfg = dict()
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
    return cfg


@torch.no_grad()
def label_by(cfg: Config, checkpoint: Path) -> Config:
    """The config with labels of its data as the float32 model itself gives them: that has an accuracy of 100%."""
    root = Path(cfg.test_dataloader.dataset.data_root)
    model = load_classifier(cfg, checkpoint)
    for split, folder, count in (('train', 'train', 64), ('test', 'val', NUM_TEST)):
        files = sorted(str(file.relative_to(root / folder)) for file in (root / folder).glob('*/*.png'))
        files = [files[index] for index in np.random.default_rng(0).permutation(len(files))[:count]]
        name = f'{checkpoint.stem}_{split}.txt'
        cfg[f'{split}_dataloader'].dataset.ann_file = name
        (root / name).write_text('\n'.join(f'{file} 0' for file in files))
        images = torch.cat([images for images, _ in iterate_samples(cfg, split)])
        # that was in another order
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        labels = torch.empty(count, dtype=torch.long)
        labels[order] = model(model.data_preprocessor(dict(inputs=images))['inputs']).argmax(1)
        assert len(labels.unique()) > 3
        (root / name).write_text('\n'.join(f'{file} {label}' for file, label in zip(files, labels, strict=True)))
    return cfg


def train(cfg: Config, model: torch.nn.Module) -> None:
    """A few epochs on half of the digits: margins between classes, and ranges of activations, as of a real model."""
    root = Path(cfg.train_dataloader.dataset.data_root)
    files = sorted((root / 'train').glob('*/*.png'))[::2]
    lines = (f'{file.relative_to(root / "train")} {file.parent.name}' for file in files)
    (root / 'train.txt').write_text('\n'.join(lines))
    batches = list(iterate_samples(cfg, 'train', batch_size=48))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same model on every machine
    for _ in range(4):
        for images, labels in batches:
            logits = model(model.data_preprocessor(dict(inputs=images))['inputs'])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
    torch.set_num_threads(num_threads)


@pytest.fixture(scope='session')
def source(tmp_path_factory, digits) -> tuple[Config, Path]:
    """A config without SE layers and a train-form checkpoint, which is right about all its images."""
    base = Config(
        dict(
            model=copy.deepcopy(SMALL_CLASSIFIER),
            data_preprocessor=dict(mean=[120.0, 110.0, 90.0], std=[60.0, 50.0, 70.0], to_rgb=True),
            test_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs'),
                    ]
                )
            ),
            default_scope='mmpretrain',
        )
    )  # fmt: skip
    cfg = make_cfg(base, digits)
    from mmrepvgg import build_classifier

    torch.manual_seed(0)
    model = build_classifier(dict(cfg.model.to_dict(), data_preprocessor=dict(cfg.data_preprocessor)))
    train(cfg, model)
    path = tmp_path_factory.mktemp('quantize') / 'train.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=list('abcdefghij')))), path)
    return label_by(cfg, path), path


@pytest.fixture(scope='session')
def quantize_once(source, tmp_path_factory):
    done = {}

    def quantize(suffix, granularity='per-channel', **options):
        key = f'{suffix} {granularity} {sorted(options.items())}'
        if key not in done:
            path = tmp_path_factory.mktemp('int8') / f'net{suffix}'
            settings = QuantizationSettings(granularity, num_samples=40)
            done[key] = quantize_model(*source, path, settings, **options), path
        return done[key]

    return quantize


def spoil(source, layers, path, factor=300):
    """A deploy checkpoint in which each of these layers has a useless channel with a huge weight.

    Nothing comes of that channel: its bias keeps it from firing. But with one scale for the whole weight, that of the
    other channels becomes 0.
    """
    cfg, checkpoint = source
    reparameterize_checkpoint(cfg, checkpoint, path)
    state_dict = dict(read_checkpoint(path).state_dict)
    for layer in layers:
        module = find_module(layer)
        weight = state_dict[f'{module}.weight'].clone()
        weight[0] = weight.abs().max() * factor
        state_dict[f'{module}.weight'] = weight
        bias = state_dict[f'{module}.bias'].clone()
        bias[0] = -1e5 * factor
        state_dict[f'{module}.bias'] = bias
    torch.save(dict(state_dict=state_dict, meta={}), path)
    return label_by(copy.deepcopy(cfg), path), path


def read_scales(path, output_of):
    """``(scale, zero point)`` of the DequantizeLinear nodes before each Conv or Gemm, by position of the input."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    found = []
    for node in graph.node:
        if node.op_type == 'Conv':
            dequantize = producers.get(node.input[output_of])
            is_quantized = dequantize is not None and dequantize.op_type == 'DequantizeLinear'
            found.append(tuple(constants[name] for name in dequantize.input[1:]) if is_quantized else None)
    return found


@pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_int8_files_of_both_formats(source, quantize_once, suffix, granularity):
    result, path = quantize_once(suffix, granularity)
    assert result.was_switched
    assert sorted(result.int8_layers) == sorted(LAYERS)
    assert result.float_layers == ()
    assert (result.num_images, result.images, result.num_calibration) == (NUM_TEST, 'test', 40)
    assert result.accuracy_reference == 100
    assert result.accuracy == result.agreement
    assert result.accuracy > 85
    assert 2.5 < result.size_ratio < 4
    assert sorted(file.name for file in path.parent.iterdir()) == (['net.bin'] if suffix == '.xml' else []) + [
        path.name
    ]
    exported = load_exported(path)
    assert exported.metadata == result.metadata
    assert exported.computes_in == exported.metadata.precision == 'int8'
    assert exported.metadata.classes == tuple('abcdefghij')
    assert (exported.metadata.input_size, exported.metadata.batch_size) == ((32, 32), None)


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_scores_are_near_float32(source, quantize_once, suffix):
    exported = load_exported(quantize_once(suffix)[1])
    model = load_classifier(*source)
    images = torch.cat([images for images, _ in iterate_samples(source[0], 'test')])
    x = model.data_preprocessor(dict(inputs=images))['inputs']
    with torch.no_grad():
        expected = model(x)
    error = (exported(x) - expected).square().mean().sqrt() / expected.std()
    assert 1e-3 < error < 0.1  # not float32 in disguise


def test_weights_are_symmetric_and_inputs_uint8(source, quantize_once):
    state_dict = load_classifier(*source).backbone
    state_dict = {name: block.get_equivalent_kernel_bias()[0] for name, block in state_dict.named_modules()
                  if hasattr(block, 'get_equivalent_kernel_bias')}  # fmt: skip
    for granularity, dims in (('per-channel', (1, 2, 3)), ('per-tensor', (0, 1, 2, 3))):
        path = quantize_once('.onnx', granularity)[1]
        for kernel, (scale, zero_point) in zip(state_dict.values(), read_scales(path, 1), strict=True):
            expected = kernel.detach().abs().amax(dims).numpy() / 127
            np.testing.assert_allclose(scale, expected, rtol=1e-4)
            assert not zero_point.any()
            assert zero_point.dtype == np.int8
        assert all(zero_point.dtype == np.uint8 for _, zero_point in read_scales(path, 0))


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_uint8_images_in_probabilities_out_one_batch_size(source, quantize_once, suffix):
    options = dict(with_preprocess=True, softmax=True, dynamic_batch=False, batch_size=2)
    exported = load_exported(quantize_once(suffix, **options)[1])
    assert exported.metadata.batch_size == 2
    images = torch.cat([images for images, _ in iterate_samples(source[0], 'test', 5)])
    scores = exported(images)
    torch.testing.assert_close(scores.sum(1), torch.ones(5))
    model = load_classifier(*source)
    with torch.no_grad():
        expected = model(model.data_preprocessor(dict(inputs=images))['inputs']).softmax(1)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ('suffix', 'calibration'), [('.onnx', 'entropy'), ('.onnx', 'percentile'), ('.xml', 'percentile')]
)
def test_calibrations(source, tmp_path, suffix, calibration):
    settings = QuantizationSettings(calibration=calibration, num_samples=40, eval_samples=0)
    result = quantize_model(*source, tmp_path / f'net{suffix}', settings)
    assert (result.accuracy, result.accuracy_reference, result.images) == (None, None, 'train')
    assert result.agreement > 70


def test_se_layers(small_cfg, small_source, digits, tmp_path):
    cfg = make_cfg(small_cfg, digits)
    cfg.model = small_cfg.model
    for split, folder in (('train', 'train'), ('test', 'val')):
        files = sorted((digits / folder).glob('*/*.png'))[::40]
        (digits / f'{split}.txt').write_text('\n'.join(f'{file.relative_to(digits / folder)} 0' for file in files))
    result = quantize_model(cfg, small_source, tmp_path / 'net.onnx', QUICK)
    assert len(result.int8_layers) == 5 * 3 + 1
    assert any('se_layer' in layer for layer in result.int8_layers)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = load_classifier(cfg, small_source)(x)
    error = load_exported(tmp_path / 'net.onnx')(x) - expected
    assert error.std() < 0.2 * expected.std()


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_grouped_layers(small_cfg, digits, tmp_path, suffix):
    cfg = make_cfg(small_cfg, digits)
    cfg.model.backbone.arch = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4, group_layer_map={2: 2, 4: 4})
    model = build_model(cfg, deploy=False)
    torch.nn.init.normal_(model.head.fc.bias)
    torch.save(model.state_dict(), tmp_path / 'grouped.pth')
    settings = QuantizationSettings(num_samples=40, eval_samples=0)
    result = quantize_model(cfg, tmp_path / 'grouped.pth', tmp_path / f'net{suffix}', settings)
    assert sorted(result.int8_layers) == sorted(LAYERS)
    assert result.float_layers == ()


def test_openvino_by_onnx_runtimes_quantizer(source, tmp_path):
    """NNCF gives no channel of a weight a scale below 1% of the largest one's, and so loses the others."""
    cfg, checkpoint = spoil(source, [CONVS[2]], tmp_path / 'spoilt.pth', factor=30000)
    accuracy = {}
    for quantizer in ('nncf', 'onnxruntime'):
        settings = QuantizationSettings('per-channel', num_samples=40, quantizer=quantizer)
        result = quantize_model(cfg, checkpoint, tmp_path / f'{quantizer}.xml', settings)
        assert sorted(result.int8_layers) == sorted(LAYERS)
        accuracy[quantizer] = result.accuracy
    assert accuracy['onnxruntime'] > 85
    assert accuracy['nncf'] < accuracy['onnxruntime'] - 10
    assert not list(tmp_path.glob('*.onnx'))


class TestFallback:
    @pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
    def test_the_layer_that_int8_breaks_stays_float(self, source, tmp_path, suffix):
        cfg, checkpoint = spoil(source, [CONVS[2]], tmp_path / 'spoilt.pth')
        settings = QuantizationSettings('per-tensor', num_samples=40, max_drop=15)
        result = quantize_model(cfg, checkpoint, tmp_path / f'net{suffix}', settings)
        assert result.float_layers == (CONVS[2],)
        assert sorted(result.int8_layers) == sorted(set(LAYERS) - {CONVS[2]})
        assert result.accuracy_all_int8 < 60
        assert result.accuracy >= 85
        assert has_signal_stack(), 'NNCF compiles many models, see openvino_core.py'
        # the layer itself, not only what is said of it
        if suffix == '.onnx':
            assert [scale is None for scale in read_scales(tmp_path / 'net.onnx', 1)] == [
                layer == CONVS[2] for layer in CONVS
            ]

    @pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
    def test_nothing_is_put_back_without_need(self, source, tmp_path, suffix):
        settings = QuantizationSettings(num_samples=40, max_drop=50)
        result = quantize_model(*source, tmp_path / f'net{suffix}', settings)
        assert result.float_layers == ()
        assert result.accuracy_all_int8 == result.accuracy

    @pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
    def test_what_can_not_be_met(self, source, tmp_path, suffix):
        cfg, checkpoint = spoil(source, LAYERS, tmp_path / 'spoilt.pth')
        out = tmp_path / f'net{suffix}'
        out.write_text('precious')
        settings = QuantizationSettings('per-tensor', num_samples=40, max_drop=0)
        with pytest.raises(
            AccuracyError, match=r'within 0 points of float32: 100\.00% in float32, .* nothing was written'
        ):
            quantize_model(cfg, checkpoint, out, settings)
        assert out.read_text() == 'precious'
        assert {file.name for file in tmp_path.iterdir()} == {'spoilt.pth', out.name}

    def test_the_search(self):
        layers = [f'{index}' for index in range(20)]

        def search(*needed):
            tried = []

            def is_enough(kept):
                tried.append(kept)
                return set(needed) <= kept

            found = find_float_layers(layers, is_enough)
            assert len(tried) == len(set(tried))
            return found, len(tried)

        assert search('0') == (('0',), 1)
        assert search('0', '4')[0] == ('0', '4')
        assert search('0', '3', '17')[0] == ('0', '3', '17')
        assert search(*layers[:15])[0] == tuple(layers[:15])
        assert search('19')[0] is None
        assert max(search(layer)[1] for layer in layers) < 25
        assert find_float_layers(['one'], lambda kept: True) is None


class TestLearnedRanges:
    RANGES = {layer: (0.0, 1.0 + index) for index, layer in enumerate(CONVS)} | {CONVS[0]: (-2.0, 3.1)}

    @pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
    def test_they_are_in_the_graph(self, source, tmp_path, granularity):
        settings = QuantizationSettings(granularity, eval_samples=40)
        result = quantize_model(*source, tmp_path / 'net.onnx', settings, activation_ranges=self.RANGES)
        assert result.int8_layers == tuple(CONVS)
        assert result.float_layers == ('head.fc',)
        assert result.num_calibration == 0
        scales = read_scales(tmp_path / 'net.onnx', 0)
        for (low, high), (scale, zero_point) in zip(self.RANGES.values(), scales, strict=True):
            assert scale == pytest.approx((high - low) / 255, rel=1e-6)
            assert zero_point == round(-low / scale.item())
        graph = onnx.load(tmp_path / 'net.onnx').graph
        assert sum(node.op_type == 'QuantizeLinear' for node in graph.node) == len(CONVS)
        kinds = {scale.shape for scale, _ in read_scales(tmp_path / 'net.onnx', 1)}
        assert (kinds == {()}) == (granularity == 'per-tensor')

    def test_openvino_computes_what_onnx_runtime_does(self, source, tmp_path):
        x = torch.randn(4, 3, 32, 32)
        ranges = dict.fromkeys(CONVS, (0.0, 20.0)) | {CONVS[0]: (-3.0, 3.0)}
        outputs = []
        for name in ('net.onnx', 'net.xml'):
            result = quantize_model(*source, tmp_path / name, QUICK, activation_ranges=ranges)
            assert result.int8_layers == tuple(CONVS)
            outputs.append(load_exported(tmp_path / name)(x))
        # without VNNI OpenVINO's kernels saturate where all weights and inputs are large, ONNX Runtime's do not
        assert (outputs[0] - outputs[1]).std() < 0.15 * outputs[0].std()

    def test_onnx_runtime_is_exact_where_fast_kernels_saturate(self, source, tmp_path):
        """Those of CPUs without VNNI instructions; with them there is nothing to see, and the fast ones are used."""
        import onnxruntime

        reparameterize_checkpoint(*source, tmp_path / 'deploy.pth')
        state_dict = dict(read_checkpoint(tmp_path / 'deploy.pth').state_dict)
        state_dict[f'{CONVS[1]}.branch_reparam.weight'].fill_(0.1)
        state_dict[f'{CONVS[1]}.branch_reparam.bias'].zero_()
        torch.save(state_dict, tmp_path / 'deploy.pth')
        ranges = {CONVS[0]: (-3.0, 3.0), CONVS[1]: (0.0, 0.1), CONVS[2]: (0.0, 1.5)}
        settings = QuantizationSettings(eval_samples=0)
        quantize_model(source[0], tmp_path / 'deploy.pth', tmp_path / 'net.onnx', settings, activation_ranges=ranges)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        reference = onnxruntime.InferenceSession(tmp_path / 'net.onnx', options, providers=['CPUExecutionProvider'])
        x = torch.randn(4, 3, 32, 32)
        expected = torch.from_numpy(reference.run(None, {'images': x.numpy()})[0])
        scores = load_exported(tmp_path / 'net.onnx')(x)
        assert (scores - expected).abs().max() < 0.05 * expected.abs().max()

    @pytest.mark.parametrize(
        ('ranges', 'message'),
        [
            ({'backbone.stage_5.0': (0, 1)}, r"must name convolutions .*backbone\.stem, .* got 'backbone\.stage_5\.0'"),
            ({'head.fc': (0, 1)}, r"got 'head\.fc'"),
            ({CONVS[0]: (1, 0)}, r'the range of backbone.stem must be finite and ascending, got \(1, 0\)'),
            ({CONVS[0]: (0, float('nan'))}, 'must be finite'),
        ],
    )  # fmt: skip
    def test_ranges_that_do_not_fit(self, source, tmp_path, ranges, message):
        with pytest.raises(ValueError, match=message):
            quantize_model(*source, tmp_path / 'net.onnx', activation_ranges=ranges)
        assert not list(tmp_path.iterdir())

    def test_no_fallback(self, source, tmp_path):
        with pytest.raises(ValueError, match='`max_drop` goes with calibrated ranges'):
            quantize_model(*source, tmp_path / 'net.onnx', QuantizationSettings(max_drop=1), activation_ranges={})


@pytest.mark.parametrize(
    ('name', 'settings', 'message'),
    [
        ('net.pt2', {}, r'int8 files can be ONNX, OpenVINO, got torch\.export'),
        ('net.tflite', {}, r'must end in \.onnx'),
        ('net.xml', dict(calibration='entropy'), 'files by nncf must be one of minmax, percentile, got entropy'),
        ('net.onnx', dict(calibration='kl'), "`calibration` must be one of minmax, entropy, percentile, got 'kl'"),
        ('net.onnx', dict(quantizer='nncf'), 'the `quantizer` of ONNX files must be one of onnxruntime, got nncf'),
        (
            'net.onnx', dict(granularity='per-row'),
            "`granularity` must be one of per-tensor, per-channel, got 'per-row'",
        ),
        ('net.onnx', dict(max_drop=-1), '`max_drop` must be points of accuracy, 0 to 100, got -1'),
        ('net.onnx', dict(max_drop=1, eval_samples=0), '`max_drop` takes test images'),
        ('net.onnx', dict(num_samples=0), '`num_samples` must be at least 1'),
        ('net.onnx', dict(clip_scales=0.5), '`clip_scales` must be at least 1, or None, got 0.5'),
        ('net.onnx', dict(clip_scales=float('nan')), '`clip_scales` must be at least 1, or None, got nan'),
        ('net.onnx', dict(eval_samples=-1), '`eval_samples` must not be negative'),
    ],
)  # fmt: skip
def test_wrong_settings(source, tmp_path, name, settings, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(*source, tmp_path / name, QuantizationSettings(**settings))


def test_limiting_scales_takes_branches(source, tmp_path):
    reparameterize_checkpoint(*source, tmp_path / 'deploy.pth')
    settings = QuantizationSettings(clip_scales=4.0)
    with pytest.raises(ValueError, match='`clip_scales` limits the batch norms of the branches.*give the train-form'):
        quantize_model(source[0], tmp_path / 'deploy.pth', tmp_path / 'net.onnx', settings)
    assert not (tmp_path / 'net.onnx').exists()


def test_test_data_that_are_missing(source, tmp_path):
    cfg = copy.deepcopy(source[0])
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'none')
    with pytest.raises(ValueError, match=r"the test data of the config can't be read .* `eval_samples=0` does without"):
        quantize_model(cfg, source[1], tmp_path / 'net.onnx', QUICK)


def test_a_damaged_checkpoint(source, tmp_path):
    (tmp_path / 'bad.pth').write_bytes(source[1].read_bytes()[:3000])
    with pytest.raises(CheckpointError, match=r'bad\.pth'):
        quantize_model(source[0], tmp_path / 'bad.pth', tmp_path / 'net.onnx', QUICK)


def test_a_missing_quantizer(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nncf', None)
    with pytest.raises(
        MissingPackageError, match=r'take nncf, not installed here: pip install "mmrepvgg\[quantization\]"'
    ):
        quantize_model(*source, tmp_path / 'net.xml')


def run_tool(tool, *args, **env):
    command = [sys.executable, str(ROOT / 'tools' / f'{tool}.py'), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})


class TestTool:
    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['net.ts'], 'int8 files can be ONNX, OpenVINO, got TorchScript'),
            (['net.xml', '--calibration', 'entropy'], 'must be one of minmax, percentile, got entropy'),
            (['net.onnx', '--max-drop', 'nan'], 'must be points of accuracy, 0 to 100, got nan'),
            (['net.onnx', '--batch-size', '2'], '--batch-size goes with --no-dynamic-batch'),
        ],
    )
    def test_wrong_usage_is_told_before_torch_is_imported(self, args, message, tmp_path):
        (tmp_path / 'sitecustomize.py').write_text("import sys\nsys.modules['torch'] = None\n")
        done = run_tool('quantize', DIGITS, 'none.pth', *args, PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
        assert (done.returncode, done.stdout) == (2, '')
        assert message in done.stderr

    def test_a_missing_package_is_told_before_anything_slow(self, source, tmp_path):
        (tmp_path / 'sitecustomize.py').write_text("import sys\nsys.modules['torch'] = sys.modules['nncf'] = None\n")
        done = run_tool('quantize', DIGITS, source[1], 'net.xml', PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
        assert done.returncode == 1
        assert done.stderr == (
            'quantize.py: error: int8 OpenVINO files take nncf, not installed here: '
            'pip install "mmrepvgg[quantization]"\n'
        )

    def test_quantize_then_test(self, source, tmp_path):
        cfg, checkpoint = source
        cfg.dump(tmp_path / 'config.py')
        out = tmp_path / 'net.xml'
        # whoever would report to the network fails
        (tmp_path / 'sitecustomize.py').write_text(
            'import socket\n'
            'def refuse(*args, **kwargs):\n'
            "    open('network.txt', 'a').write(repr(args))\n"
            "    raise OSError('no network here')\n"
            'socket.socket.connect = socket.getaddrinfo = refuse\n'
        )
        path = {'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
        options = ['--num-samples', 40, '--clip-scales', 8]
        done = run_tool('quantize', tmp_path / 'config.py', checkpoint, out, *options, **path)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 5, done.stdout
        assert lines[0].endswith('train form, switched to deploy form')
        assert re.fullmatch(r'limited the batch norm scales of \d+ channels to 8 times their median', lines.pop(1))
        assert 'int8 per-channel, calibrated by minmax on 40 training images; 6 of 6 layers in int8' in lines[1]
        accuracy = float(re.search(rf'on {NUM_TEST} test images: 100\.00% in float32, ([\d.]+)% in this', lines[2])[1])
        assert lines[3] == f'same label as float32: {accuracy:.2f}% of {NUM_TEST} test images'
        assert not Path('network.txt').exists()
        report = tmp_path / 'report.json'
        done = run_tool('test', tmp_path / 'config.py', out, '--metrics', 'accuracy', '--out', report, **path)
        assert done.returncode == 0, done.stderr
        assert str(round(accuracy, 2)) in report.read_text() + done.stdout
        assert json.loads(report.read_text())

    def test_failure(self, source, tmp_path):
        cfg, checkpoint = spoil(source, LAYERS, tmp_path / 'spoilt.pth')
        cfg.dump(tmp_path / 'config.py')
        out = tmp_path / 'net.onnx'
        options = ['--granularity', 'per-tensor', '--max-drop', '0', '--num-samples', '40']
        done = run_tool('quantize', tmp_path / 'config.py', checkpoint, out, *options)
        assert (done.returncode, done.stdout) == (1, '')
        assert 'int8 can not keep the top-1 accuracy within 0 points of float32' in done.stderr
        assert 'Traceback' not in done.stderr
        assert not out.exists()
