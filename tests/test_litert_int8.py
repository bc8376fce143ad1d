"""int8 LiteRT files: the ranges, the weights, and files without calibration images."""

import copy
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from int8_source import CONVS, LAYERS, METADATA, NUM_TRAIN, make_config, write_float
from tool_runs import succeed_here
from torch import nn

from mmrepvgg import build_classifier, reparameterize
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.quantization.plan import make_plan
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.quantization.trained import Training
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.litert import LITERT
from mmrepvgg.runtimes.litert_graph import iterate_operators, parse_model
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.onnx import ONNX
from mmrepvgg.runtimes.prepared import normalise

(QUANTIZER,) = LITERT.quantizers


@pytest.fixture(scope='module')
def network(digits, tmp_path_factory):
    """A network and its calibration images, in batches."""
    cfg = make_config(digits, digits / 'small.pth', tmp_path_factory.mktemp('labels'))
    deployed = load_classifier(cfg, digits / 'small_deploy.pth')
    images = torch.cat([normalise(deployed, images) for images, _ in iterate_samples(cfg, 'train')])
    batches = [batch.numpy() for batch in images.split(16)]
    source = write_float(LITERT, deployed, METADATA, tmp_path_factory.mktemp('float'))
    return SimpleNamespace(
        cfg=cfg, checkpoint=digits / 'small.pth', deployed=deployed, images=images, batches=batches, source=source
    )


def quantize(network, path, granularity='per-channel', calibration='minmax', float_layers=()):
    batches = network.batches if calibration == 'minmax' else ()
    int8 = QUANTIZER.calibrate(network.source, batches, granularity=granularity, calibration=calibration)
    int8.write(path, METADATA, float_layers)
    return read_layers(path)


def read_layers(path):
    """Input, weight and output of each layer: kind of numbers, scales and zero points; and the values of the weight."""
    from ai_edge_litert.schema_py_generated import TensorType

    kinds = {value: name for name, value in vars(TensorType).items()}
    model = parse_model(path.read_bytes())
    (graph,) = model.subgraphs
    layers = {}
    for operator, kind in iterate_operators(model):
        if kind in ('CONV_2D', 'FULLY_CONNECTED'):
            tensors = [graph.tensors[index] for index in (*operator.inputs[:2], operator.outputs[0])]
            parts = [
                SimpleNamespace(
                    kind=kinds[tensor.type],
                    scale=np.array(tensor.quantization.scale) if tensor.quantization is not None else None,
                    zero_point=np.array(tensor.quantization.zeroPoint) if tensor.quantization is not None else None,
                )
                for tensor in tensors
            ]
            values = model.buffers[tensors[1].buffer].data
            parts[1].values = np.frombuffer(values, np.int8 if parts[1].kind == 'INT8' else np.float32)
            layers[tensors[2].name.decode()] = SimpleNamespace(input=parts[0], weight=parts[1], output=parts[2])
    return layers


def get_kinds(path, prefix):
    """The kinds of the tensors whose names begin with ``prefix``."""
    from ai_edge_litert.schema_py_generated import TensorType

    kinds = {value: name for name, value in vars(TensorType).items()}
    tensors = parse_model(path.read_bytes()).subgraphs[0].tensors
    return {
        kinds[tensor.type] for tensor in tensors if re.fullmatch(rf'{prefix}.*(?<!_quantized)', tensor.name.decode())
    }


def get_weight(network, layer):
    # the last axis of a weight in the file is that of the input channels
    weight = network.deployed.get_submodule(layer if layer == 'head.fc' else f'{layer}.branch_reparam').weight.detach()
    return weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight


def observe(network):
    """Smallest and largest input of each layer on all calibration images."""
    seen = {}
    modules = {layer: layer if layer == 'head.fc' else f'{layer}.branch_reparam' for layer in LAYERS}
    handles = [
        network.deployed.get_submodule(module).register_forward_pre_hook(
            lambda module, args, layer=layer: seen.update({layer: (args[0].min(), args[0].max())})
        )
        for layer, module in modules.items()
    ]
    with torch.no_grad():
        logits = network.deployed(network.images)
    for handle in handles:
        handle.remove()
    return seen, logits


def test_ranges_are_those_of_the_data(network, tmp_path):
    """LiteRT's own calibrator takes moving averages, and cuts what lies outside."""
    layers = quantize(network, tmp_path / 'net.tflite')
    seen, logits = observe(network)
    assert list(layers) == LAYERS
    for layer, (low, high) in seen.items():
        width = max(high.item(), 0) - min(low.item(), 0)
        assert layers[layer].input.scale == pytest.approx(width / 255, rel=1e-3), layer
    got = load_exported(tmp_path / 'net.tflite')(network.images)
    assert got.dtype == torch.float32, 'the ends are not int8'
    assert got.max() > 0.98 * logits.max()
    assert got.min() < 0.98 * logits.min()


@pytest.mark.parametrize('calibration', QUANTIZER.calibrations)
@pytest.mark.parametrize(('granularity', 'dims'), [('per-channel', (1, 2, 3)), ('per-tensor', (0, 1, 2, 3))])
def test_weights_are_symmetric_and_activations_int8(network, tmp_path, calibration, granularity, dims):
    layers = quantize(network, tmp_path / 'net.tflite', granularity, calibration)
    activations = {'minmax': 'INT8', 'dynamic': 'FLOAT32'}[calibration]
    for layer, parts in layers.items():
        expected = get_weight(network, layer).abs().amax(dims if layer in CONVS else dims[:-2]) / 127
        np.testing.assert_allclose(parts.weight.scale, expected.reshape(-1), rtol=1e-4)
        assert not parts.weight.zero_point.any()
        assert (parts.input.kind, parts.weight.kind, parts.output.kind) == (activations, 'INT8', activations)


@pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
def test_rounded_weights_stay(network, tmp_path, granularity):
    rounded = copy.deepcopy(network.deployed)
    for layer in CONVS:
        weight = rounded.get_submodule(f'{layer}.branch_reparam').weight
        step = weight.detach().abs().amax((1, 2, 3) if granularity == 'per-channel' else None, keepdim=True) / 127
        # not to the nearest step, as adaptive rounding does not
        steps = (weight.detach() / step + 0.4).floor().clamp(-127, 127)
        is_largest = weight.detach().abs() >= 126.9999 * step
        weight.data.copy_(torch.where(is_largest, weight.detach(), steps * step))
    source = write_float(LITERT, rounded, METADATA, tmp_path)
    int8 = QUANTIZER.calibrate(source, network.batches, granularity=granularity, calibration='minmax')
    int8.write(tmp_path / 'net.tflite', METADATA)
    layers = read_layers(tmp_path / 'net.tflite')
    for layer in CONVS:
        weight = rounded.get_submodule(f'{layer}.branch_reparam').weight.detach().permute(0, 2, 3, 1).numpy()
        parts = layers[layer].weight
        scale = parts.scale.reshape(-1, 1, 1, 1) if granularity == 'per-channel' else parts.scale.item()
        values = parts.values.reshape(weight.shape)
        np.testing.assert_allclose(values * scale, weight, rtol=1e-4, atol=1e-6 * abs(weight).max())


@pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
def test_large_weights(network, tmp_path, granularity):
    """LiteRT's quantizer fails for convolutions of more than 32 MiB, as the last ones of B1 and larger archs."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 512, 3, 8), nn.ReLU(), nn.Conv2d(512, 2048, 3), nn.ReLU())
    large = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 10)).eval()
    assert large[2].weight.numel() * 4 > 32 * 2**20
    source = write_float(LITERT, large, METADATA, tmp_path)
    int8 = QUANTIZER.calibrate(source, network.batches, granularity=granularity, calibration='minmax')
    int8.write(tmp_path / 'large.tflite', METADATA)
    with torch.no_grad():
        expected = large(network.images)
    error = load_exported(tmp_path / 'large.tflite')(network.images) - expected
    assert 0 < error.std() < 0.1 * (expected - expected.mean(0)).std()


@pytest.mark.parametrize('calibration', QUANTIZER.calibrations)
def test_a_layer_in_float(network, tmp_path, calibration):
    layers = quantize(network, tmp_path / 'net.tflite', calibration=calibration, float_layers=(CONVS[2], 'head.fc'))
    for layer, parts in layers.items():
        assert (parts.weight.kind == 'FLOAT32') == (layer in (CONVS[2], 'head.fc')), layer
    assert (layers[CONVS[2]].input.kind, layers[CONVS[2]].output.kind) == ('FLOAT32', 'FLOAT32')


def test_dynamic_ranges_are_those_of_an_image(network, tmp_path):
    """Not of a batch: a dark image beside a bright one would lose its steps."""
    quantize(network, tmp_path / 'net.tflite', calibration='dynamic')
    exported = load_exported(tmp_path / 'net.tflite')
    images = network.images[:4].clone()
    alone = torch.cat([exported(image[None]) for image in images])
    images[0] *= 1000
    torch.testing.assert_close(exported(images)[1:], alone[1:], rtol=0, atol=1e-4)


def test_the_padding_of_a_max_pooling_is_no_range(network, tmp_path):
    """ResNets have one, with which the benchmark compares. The converter pads with the lowest number there is."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    int8 = QUANTIZER.calibrate(
        write_float(LITERT, model, METADATA, tmp_path), network.batches, granularity='per-channel', calibration='minmax'
    )
    int8.write(tmp_path / 'net.tflite', METADATA)
    with torch.no_grad():
        expected = model(network.images)
    assert (load_exported(tmp_path / 'net.tflite')(network.images) - expected).std() < 0.05 * expected.std()


def test_the_accuracy_is_that_of_onnx_files(network, tmp_path):
    """Three of the 90 images, and the defaults of `quantize`: equalized per-tensor, rounded where ranges are static."""
    reference = quantize_model(network.cfg, network.checkpoint, tmp_path / 'net.onnx')
    results = {
        name: quantize_model(network.cfg, network.checkpoint, tmp_path / 'net.tflite', QuantizationSettings(**settings))
        for name, settings in {
            'per-channel': dict(),
            'per-tensor': dict(granularity='per-tensor'),
            'dynamic': dict(calibration='dynamic'),
            'dynamic per-tensor': dict(calibration='dynamic', granularity='per-tensor'),
        }.items()
    }
    for name, result in results.items():
        assert result.accuracy >= reference.accuracy - 100 * 3 / 90, name
        assert (sorted(result.int8_layers), result.float_layers) == (sorted(LAYERS), ())
        assert 3 < result.size_ratio < 4
    assert [result.num_calibration for result in results.values()] == [NUM_TRAIN, NUM_TRAIN, 0, 0]
    assert [result.was_rounded for result in results.values()] == [True, True, False, False]
    assert [result.num_equalized > 0 for result in results.values()] == [False, True, False, True]


def test_uint8_images_in_probabilities_out_one_batch_size(network, tmp_path):
    path = tmp_path / 'net.tflite'
    options = dict(with_preprocess=True, softmax=True, dynamic_batch=False, batch_size=2)
    quantize_model(network.cfg, network.checkpoint, path, QuantizationSettings(eval_samples=0), **options)
    exported = load_exported(path)
    assert exported.computes_in == 'int8'
    images = torch.cat([images for images, _ in iterate_samples(network.cfg, 'test', 5)])
    scores = exported(images)
    # not rounded to multiples of 1/256, as probabilities in int8 would be
    torch.testing.assert_close(scores.sum(1), torch.ones(5), rtol=0, atol=1e-5)
    with torch.no_grad():
        expected = network.deployed(normalise(network.deployed, images)).softmax(1)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.1)
    layers = read_layers(path)
    assert layers[CONVS[0]].input.kind == layers['head.fc'].output.kind == 'INT8'
    assert get_kinds(path, 'images/') == {'UINT8', 'FLOAT32'}, 'the normalisation is not rounded'


@pytest.mark.parametrize('calibration', QUANTIZER.calibrations)
def test_any_height_and_width(network, tmp_path, calibration):
    metadata = replace(METADATA, dynamic_size=True)
    source = write_float(LITERT, network.deployed, metadata, tmp_path)
    int8 = QUANTIZER.calibrate(source, network.batches, granularity='per-channel', calibration=calibration)
    int8.write(tmp_path / 'net.tflite', metadata)
    exported = load_exported(tmp_path / 'net.tflite')
    for size in ((32, 32), (64, 41), (33, 96)):
        images = nn.functional.interpolate(network.images, size)
        with torch.no_grad():
            expected = network.deployed(images)
        assert (exported(images) - expected).std() < 0.2 * expected.std(), size


@pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
@pytest.mark.parametrize('calibration', QUANTIZER.calibrations)
def test_depthwise_convolutions(network, randomise, tmp_path, calibration, granularity):
    """Those of dynamic ranges compute nonsense from one scale for the whole weight."""
    arch = dict(num_blocks=[1, 1], width_factor=[1, 1], group_layer_map={2: 8})
    backbone = dict(
        type='mmrepvgg.RepVGG', arch=arch, base_channels=8, strides=(2, 2), dilations=(1, 1), out_indices=(1,)
    )
    head = dict(type='LinearClsHead', num_classes=10)
    model = build_classifier(
        dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    )
    model = reparameterize(randomise(model).eval())
    nn.init.normal_(model.head.fc.weight)
    source = write_float(LITERT, model, METADATA, tmp_path)
    assert 'DEPTHWISE_CONV_2D' in [kind for _, kind in iterate_operators(parse_model(source.read_bytes()))]
    int8 = QUANTIZER.calibrate(source, network.batches, granularity=granularity, calibration=calibration)
    int8.write(tmp_path / 'net.tflite', METADATA)
    with torch.no_grad():
        expected = model(network.images)
    assert (load_exported(tmp_path / 'net.tflite')(network.images) - expected).std() < 0.2 * expected.std()
    is_refused = (calibration, granularity) == ('dynamic', 'per-tensor')
    assert [layer for layer, can_be_int8 in int8.layers.items() if not can_be_int8] == (
        ['backbone.stage_2.0'] if is_refused else []
    )


class TestWithoutImages:
    def test_no_training_images_are_read(self, network, tmp_path):
        cfg = copy.deepcopy(network.cfg)
        cfg.train_dataloader.dataset.data_prefix = cfg.train_dataloader.dataset.ann_file = 'none'
        cfg.dump(tmp_path / 'config.py')
        args = ['config.py', network.checkpoint, 'net.tflite', '--calibration', 'dynamic']
        lines = succeed_here('quantize', *args, cwd=tmp_path).splitlines()
        assert 'int8 per-channel, ranges of each image, which the runtime finds; 7 of 7 layers in int8' in lines[1]
        assert 'test images: 100.00% in float32' in lines[2]
        assert (tmp_path / 'net.tflite').exists()

    def test_the_plan(self):
        dynamic = make_plan(LITERT, QuantizationSettings('per-tensor', calibration='dynamic'))
        assert (dynamic.calibrates, dynamic.needs_images) == (False, False)
        assert (dynamic.equalizes, dynamic.rounds_adaptively) == (True, False)
        for settings in (dict(adaptive_rounding=True), dict(max_drop=1)):
            asked = make_plan(LITERT, QuantizationSettings(calibration='dynamic', **settings))
            assert (asked.calibrates, asked.needs_images) == (False, True)
        static = make_plan(LITERT, QuantizationSettings())
        assert (static.calibrates, static.needs_images, static.rounds_adaptively) == (True, True, True)
        with pytest.raises(ValueError, match='of ONNX files by onnxruntime must be one of .* got dynamic'):
            make_plan(ONNX, QuantizationSettings(calibration='dynamic'))

    def test_trained_ranges_are_refused(self):
        trained = Training('per-tensor', {CONVS[0]: (0.0, 1.0)})
        with pytest.raises(ValueError, match='ranges need a file of another format, ONNX, .*: no quantizer of LiteRT'):
            make_plan(LITERT, QuantizationSettings(), trained=trained)
