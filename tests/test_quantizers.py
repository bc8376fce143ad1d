"""int8 files by the quantizers of the runtimes: the numbers in them, and any layer in float32."""

import copy
from dataclasses import replace

import onnx
import pytest
import torch
from int8_source import CONVS, LAYERS, read_network, read_scales, spoil, write_float
from signal_stack import has_signal_stack

from mmrepvgg import build_classifier, reparameterize
from mmrepvgg.measures.accuracy import measure_percent
from mmrepvgg.quantization import measuring
from mmrepvgg.quantization.fallback import AccuracyError, find_float_layers, limit_drop
from mmrepvgg.quantization.measuring import load_file, measure_accuracy, read_inputs
from mmrepvgg.runtimes.litert import LITERT
from mmrepvgg.runtimes.litert_graph import parse_model
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.ncnn import NCNN
from mmrepvgg.runtimes.onnx import ONNX
from mmrepvgg.runtimes.openvino import OPENVINO
from mmrepvgg.runtimes.openvino_core import get_core

ROWS = {
    'onnx': ONNX,
    'nncf': OPENVINO,
    'onnx in OpenVINO': OPENVINO,
    'ncnn': NCNN,
    'litert': LITERT,
}
QUANTIZERS = dict(
    zip(ROWS, [quantizer for row in dict.fromkeys(ROWS.values()) for quantizer in row.quantizers], strict=True)
)


@pytest.fixture(scope='module')
def network(digits, tmp_path_factory):
    """The network, its images as inputs of files, and what float32 says about them."""
    return read_network(digits, tmp_path_factory.mktemp('labels'))


@pytest.fixture(scope='module')
def calibrate(network, tmp_path_factory):
    """An int8 model of the network; float32 files and models are made once."""
    done = {}

    def write(row, layers=(), factor=300):
        key = row.name, layers, factor
        if key not in done:
            folder = tmp_path_factory.mktemp('float')
            done[key] = write_float(row, spoil(network.deployed, layers, factor), network.metadata, folder)
        return done[key]

    def calibrate(name, granularity='per-channel', calibration='minmax', spoilt=(), factor=300):
        key = name, granularity, calibration, spoilt, factor
        if key not in done:
            quantizer = QUANTIZERS[name]
            path = write(quantizer.source or ROWS[name], spoilt, factor)
            options = dict(granularity=granularity, calibration=calibration)
            done[key] = quantizer.calibrate(path, network.calibration, **options)
        return done[key]

    calibrate.write = write
    return calibrate


def test_images_that_memory_does_not_hold_are_read_anew(network, monkeypatch):
    monkeypatch.setattr(measuring, '_MAX_BYTES', network.x[0].nbytes * len(network.x) - 1)
    inputs = read_inputs(network.cfg, 'test', None, seed=0, prepared=network.prepared)
    assert isinstance(network.test, list)
    assert not isinstance(inputs, list)
    for _ in range(2):
        assert all((a == b).all() for (a, _), (b, _) in zip(inputs, network.test, strict=True))


def find_path(name, folder):
    return folder / f'net{ROWS[name].suffixes[0]}'


@pytest.mark.parametrize('name', QUANTIZERS)
def test_each_layer_can_be_left_in_float(network, calibrate, tmp_path, name):
    int8, path = calibrate(name), find_path(name, tmp_path)
    assert int8.layers == dict.fromkeys(LAYERS, True)

    def measure_error(float_layers):
        int8.write(path, network.metadata, float_layers)
        return ((load_exported(path)(network.x) - network.scores).square().mean().sqrt() / network.scores.std()).item()

    whole = measure_error(())
    assert 1e-3 < whole < 0.1  # not float32 in disguise
    assert measure_error(LAYERS) < 1e-5
    alone = [measure_error(set(LAYERS) - {layer}) for layer in LAYERS]
    assert all(1e-4 < error < 1.2 * whole for error in alone), alone
    assert sum(error**2 for error in alone) == pytest.approx(whole**2, rel=0.6), 'errors of layers are independent'
    exported = load_exported(path)
    assert exported.metadata == network.metadata
    assert exported.computes_in == 'int8'
    assert has_signal_stack(), 'NNCF compiles many models, see openvino_core.py'


def test_weights_are_symmetric_and_inputs_uint8(network, calibrate, tmp_path):
    kernels = [network.deployed.get_submodule(f'{layer}.branch_reparam').weight for layer in CONVS]
    for granularity, dims in (('per-channel', (1, 2, 3)), ('per-tensor', (0, 1, 2, 3))):
        calibrate('onnx', granularity).write(tmp_path / 'net.onnx', network.metadata)
        for kernel, (scale, zero_point) in zip(kernels, read_scales(tmp_path / 'net.onnx', 1), strict=True):
            expected = kernel.abs().amax(dims) / 127
            torch.testing.assert_close(torch.from_numpy(scale), expected.detach(), rtol=1e-4, atol=0)
            assert not zero_point.any()
            assert zero_point.dtype == 'int8'
        assert all(zero_point.dtype == 'uint8' for _, zero_point in read_scales(tmp_path / 'net.onnx', 0))


@pytest.mark.parametrize(
    ('name', 'calibration'),
    [('onnx', 'entropy'), ('onnx', 'percentile'), ('nncf', 'percentile'), ('onnx in OpenVINO', 'entropy')],
)
def test_calibrations(network, calibrate, tmp_path, name, calibration):
    path = find_path(name, tmp_path)
    scores = []
    for method in ('minmax', calibration):
        calibrate(name, calibration=method).write(path, network.metadata)
        scores.append(load_exported(path)(network.x))
    assert measure_percent(scores[1], network.scores) > 70
    assert not torch.equal(*scores)


def read_shape(path):
    if path.suffix == '.xml':
        return list(get_core().read_model(path).inputs[0].shape)
    if path.suffix == '.tflite':
        (graph,) = parse_model(path.read_bytes()).subgraphs
        return list(graph.tensors[graph.inputs[0]].shape)
    return [dim.dim_value for dim in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]


# an ncnn file takes one image at a time
@pytest.mark.parametrize('name', [name for name in QUANTIZERS if name != 'ncnn'])
def test_one_batch_size(network, calibrate, tmp_path, name):
    path = find_path(name, tmp_path)
    calibrate(name).write(path, network.metadata)
    expected = load_exported(path)(network.x[:5])
    calibrate(name).write(path, replace(network.metadata, batch_size=2))
    exported = load_exported(path)
    assert exported.metadata.batch_size == 2
    assert read_shape(path) == [2, 3, 32, 32]
    torch.testing.assert_close(exported(network.x[:5]), expected, atol=1e-3, rtol=0)
    calibrate(name).write(path, network.metadata)  # the model is as it was
    torch.testing.assert_close(load_exported(path)(network.x[:5]), expected)


@pytest.mark.parametrize('name', QUANTIZERS)
@pytest.mark.parametrize(
    'arch',
    [dict(group_layer_map={2: 2}), dict(se_cfg=dict(ratio=4, divisor=1))],
    ids=['groups', 'SE'],
)
def test_other_layers(network, randomise, tmp_path, name, arch):
    backbone = dict(
        type='mmrepvgg.RepVGG', arch=dict(num_blocks=[1, 1], width_factor=[1, 1]) | arch, base_channels=8,
        strides=(2, 2), dilations=(1, 1), out_indices=(1,),
    )  # fmt: skip
    model = build_classifier(
        dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
             head=dict(type='LinearClsHead', num_classes=10))
    )  # fmt: skip
    model = reparameterize(randomise(model).eval())
    torch.nn.init.normal_(model.head.fc.weight)
    row, quantizer = ROWS[name], QUANTIZERS[name]
    source = write_float(quantizer.source or row, model, network.metadata, tmp_path)
    int8 = quantizer.calibrate(source, network.calibration, granularity='per-channel', calibration='minmax')
    int8.write(find_path(name, tmp_path), network.metadata)
    assert sum('se_layer' in layer for layer in int8.layers) == (6 if 'se_cfg' in arch else 0)
    assert all(int8.layers.values())
    with torch.no_grad():
        expected = model(network.x)
    assert (load_exported(find_path(name, tmp_path))(network.x) - expected).std() < 0.2 * expected.std()


def test_onnx_runtimes_quantizer_keeps_small_channels(network, calibrate, tmp_path):
    """NNCF gives no channel of a weight a scale below 1% of the largest one's, and so loses the others."""
    agreement = {}
    for name in ('nncf', 'onnx in OpenVINO'):
        spoilt = calibrate(name, spoilt=(CONVS[2],), factor=30000)
        spoilt.write(tmp_path / 'net.xml', network.metadata)
        agreement[name] = measure_percent(load_exported(tmp_path / 'net.xml')(network.x), network.scores)
    assert agreement['onnx in OpenVINO'] > 85
    assert agreement['nncf'] < agreement['onnx in OpenVINO'] - 10
    assert [path.name for path in tmp_path.iterdir() if path.suffix == '.onnx'] == []


class TestFallback:
    def limit(self, network, int8, path, max_drop):
        return limit_drop(
            int8, path, network.metadata, accuracy=100, max_drop=max_drop, calibration=network.calibration,
            test=network.test,
        )  # fmt: skip

    @pytest.mark.parametrize('name', QUANTIZERS)
    def test_the_layer_that_int8_breaks_stays_float(self, network, calibrate, tmp_path, name):
        int8, path = calibrate(name, 'per-tensor', spoilt=(CONVS[2],)), find_path(name, tmp_path)
        float_layers = self.limit(network, int8, path, 15)
        assert float_layers == (CONVS[2],)
        int8.write(path, network.metadata)
        assert measure_accuracy(load_file(path), network.test) < 60
        int8.write(path, network.metadata, float_layers)
        assert measure_accuracy(load_file(path), network.test) >= 85
        # the layer itself, not only what is said of it
        if name == 'onnx':
            assert [scale is None for scale in read_scales(path, 1)] == [layer == CONVS[2] for layer in CONVS]

    @pytest.mark.parametrize('name', ['onnx', 'nncf'])
    def test_nothing_is_put_back_without_need(self, network, calibrate, tmp_path, name):
        int8, path = calibrate(name), find_path(name, tmp_path)
        assert self.limit(network, int8, path, 50) == ()

    @pytest.mark.parametrize('name', ['onnx', 'nncf'])
    def test_what_can_not_be_met(self, network, calibrate, tmp_path, name):
        int8 = calibrate(name, 'per-tensor', spoilt=tuple(LAYERS))
        with pytest.raises(
            AccuracyError, match=r'within 0 points of float32: 100\.00% in float32, .* nothing was written.*`max_drop`'
        ):
            self.limit(network, int8, find_path(name, tmp_path), 0)

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


class TestGivenRanges:
    RANGES = {layer: (0.0, 1.0 + index) for index, layer in enumerate(CONVS)} | {CONVS[0]: (-2.0, 3.1)}

    @pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
    def test_they_are_in_the_graph(self, network, calibrate, tmp_path, granularity):
        (quantizer,) = ONNX.quantizers
        source, path = calibrate.write(ONNX), tmp_path / 'net.onnx'
        int8 = quantizer.use_ranges(source, self.RANGES, granularity=granularity)
        assert int8.layers == dict.fromkeys(CONVS, True) | {'head.fc': False}
        int8.write(path, network.metadata)
        for (low, high), (scale, zero_point) in zip(self.RANGES.values(), read_scales(path, 0), strict=True):
            assert scale == pytest.approx((high - low) / 255, rel=1e-6)
            assert zero_point == round(-low / scale.item())
        graph = onnx.load(path).graph
        assert sum(node.op_type == 'QuantizeLinear' for node in graph.node) == len(CONVS)
        kinds = {scale.shape for scale, _ in read_scales(path, 1)}
        assert (kinds == {()}) == (granularity == 'per-tensor')

    def test_openvino_computes_what_onnx_runtime_does(self, network, calibrate, tmp_path):
        ranges = dict.fromkeys(CONVS, (0.0, 20.0)) | {CONVS[0]: (-3.0, 3.0)}
        outputs = []
        for name in ('onnx', 'onnx in OpenVINO'):
            path = find_path(name, tmp_path)
            int8 = QUANTIZERS[name].use_ranges(calibrate.write(ONNX), ranges, granularity='per-channel')
            assert [layer for layer, can_be_int8 in int8.layers.items() if can_be_int8] == CONVS
            int8.write(path, network.metadata)
            outputs.append(load_exported(path)(network.x))
        # without VNNI OpenVINO's kernels saturate where all weights and inputs are large, ONNX Runtime's do not
        assert (outputs[0] - outputs[1]).std() < 0.15 * outputs[0].std()

    def test_onnx_runtime_is_exact_where_fast_kernels_saturate(self, network, tmp_path):
        """Those of CPUs without VNNI instructions; with them there is nothing to see, and the fast ones are used."""
        import onnxruntime

        deployed = copy.deepcopy(network.deployed)
        conv = deployed.get_submodule(f'{CONVS[1]}.branch_reparam')
        conv.weight.data.fill_(0.1)
        conv.bias.data.zero_()
        path = tmp_path / 'net.onnx'
        ranges = {CONVS[0]: (-3.0, 3.0), CONVS[1]: (0.0, 0.1), CONVS[2]: (0.0, 1.5)}
        source = write_float(ONNX, deployed, network.metadata, tmp_path)
        QUANTIZERS['onnx'].use_ranges(source, ranges, granularity='per-channel').write(path, network.metadata)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        reference = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        x = torch.randn(4, 3, 32, 32)
        expected = torch.from_numpy(reference.run(None, {'images': x.numpy()})[0])
        assert (load_exported(path)(x) - expected).abs().max() < 0.05 * expected.abs().max()

    @pytest.mark.parametrize(
        ('ranges', 'message'),
        [
            ({'backbone.stage_5.0': (0, 1)}, r"must name convolutions .*backbone\.stem, .* got 'backbone\.stage_5\.0'"),
            ({'head.fc': (0, 1)}, r"got 'head\.fc'"),
            ({CONVS[0]: (1, 0)}, r'the range of backbone.stem must be finite and ascending, got \(1, 0\)'),
            ({CONVS[0]: (0, float('nan'))}, 'must be finite'),
        ],
    )  # fmt: skip
    def test_ranges_that_do_not_fit(self, calibrate, ranges, message):
        with pytest.raises(ValueError, match=message):
            QUANTIZERS['onnx'].use_ranges(calibrate.write(ONNX), ranges, granularity='per-channel')

    def test_nncf_takes_none(self, calibrate):
        assert not QUANTIZERS['nncf'].takes_ranges
        with pytest.raises(NotImplementedError, match='nncf does not take given ranges'):
            QUANTIZERS['nncf'].use_ranges(calibrate.write(OPENVINO), {}, granularity='per-channel')
