"""int8 files for ExecuTorch: as exact as ONNX Runtime's, any layer in float32, and nothing that XNNPACK leaves out."""

import copy
import re
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from int8_source import CONVS, LAYERS, METADATA, read_network, spoil, write_float
from small_classifier import SMALL_CLASSIFIER
from test_executorch import list_operators
from tool_runs import SMALL, run_tool

from mmrepvgg import build_classifier, reparameterize
from mmrepvgg.measures.accuracy import measure_percent
from mmrepvgg.models.int8 import fake_quantize_kernel
from mmrepvgg.quantization.plan import make_plan
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.runtimes.executorch import EXECUTORCH
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.onnx import ONNX


@pytest.fixture(scope='module')
def network(digits, tmp_path_factory):
    """A trained network, its images as inputs of files, and what float32 says about them."""
    return read_network(digits, tmp_path_factory.mktemp('labels'))


def calibrate(row, deployed, network, folder, granularity='per-channel', calibration='minmax'):
    (quantizer,) = row.quantizers
    source = write_float(quantizer.source or row, deployed, network.metadata, folder)
    return quantizer.calibrate(source, network.calibration, granularity=granularity, calibration=calibration)


def run(int8, row, network, folder, float_layers=(), **changes):
    path = folder / f'net{row.suffixes[0]}'
    int8.write(path, replace(network.metadata, **changes), float_layers)
    return load_exported(path)


def measure_error(scores, network):
    return ((scores - network.scores).square().mean().sqrt() / network.scores.std()).item()


@pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
def test_it_is_as_exact_as_onnx_runtimes(network, tmp_path, granularity):
    errors = []
    for row in (EXECUTORCH, ONNX):
        exported = run(calibrate(row, network.deployed, network, tmp_path, granularity), row, network, tmp_path)
        scores = exported(network.x)
        assert measure_percent(scores, network.scores) > 95
        errors.append(measure_error(scores, network))
        assert exported.computes_in == 'int8'
        assert exported.metadata == network.metadata
    assert 1e-3 < errors[0] < 1.3 * errors[1]
    assert list_operators(tmp_path / 'net.pte') <= {'aten::sym_size', 'executorch_prim::et_view'}
    assert (tmp_path / 'net.pte').stat().st_size < 0.4 * (tmp_path / 'float.pt2').stat().st_size


def test_a_batch_norm_behind_a_convolution_is_fused_first(network, randomise, tmp_path):
    """As in the ResNets of the benchmark, and behind an inserted norm. Its ReLU is then that of the convolution."""
    norm = randomise(torch.nn.BatchNorm2d(32)).eval()
    head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10))
    normed = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, 2, 1), norm, torch.nn.ReLU(), *head).eval()
    int8 = calibrate(EXECUTORCH, normed, network, tmp_path)
    with torch.no_grad():
        expected = SimpleNamespace(scores=normed(network.x))
    assert 1e-4 < measure_error(run(int8, EXECUTORCH, network, tmp_path)(network.x), expected) < 0.05


def test_layers_in_float(network, tmp_path):
    spoilt = spoil(network.deployed, [CONVS[2]], 300)
    int8 = calibrate(EXECUTORCH, spoilt, network, tmp_path, 'per-tensor')
    assert int8.layers == dict.fromkeys(LAYERS, True)
    agreement = [
        measure_percent(run(int8, EXECUTORCH, network, tmp_path, layers)(network.x), network.scores)
        for layers in ((), (CONVS[2],))
    ]
    assert agreement[0] < 60
    assert agreement[1] > 85
    with torch.no_grad():
        expected = SimpleNamespace(scores=spoilt(network.x))
    assert measure_error(run(int8, EXECUTORCH, network, tmp_path, LAYERS)(network.x), expected) < 1e-5


def list_weights(module):
    """The int8 weights of a converted program, times their steps."""
    target = torch.ops.quantized_decomposed.dequantize_per_channel.default
    arguments = [node.args[:3] for node in module.graph.nodes if node.target == target]
    values = [[getattr(module, node.target) for node in nodes] for nodes in arguments]
    assert all(weight.dtype == torch.int8 and not zero.any() for weight, _, zero in values)
    return [weight * step.view(-1, *[1] * (weight.ndim - 1)) for weight, step, _ in values]


def list_rounded(module):
    """The nodes of a converted program that round activations."""
    target = torch.ops.quantized_decomposed.quantize_per_tensor.default
    return [node for node in module.graph.nodes if node.target == target]


@pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
def test_weights_on_the_grid_stay(network, tmp_path, granularity):
    """Adaptive rounding puts them there. Small ones too: ExecuTorch's own quantizer has no step below 2**-12."""
    deployed = copy.deepcopy(network.deployed)
    convs = [deployed.get_submodule(f'{layer}.branch_reparam') for layer in CONVS]
    for layer in [*convs, deployed.head.fc]:
        layer.weight.data.mul_(0.001).copy_(fake_quantize_kernel(layer.weight, granularity == 'per-channel'))
    module = calibrate(EXECUTORCH, deployed, network, tmp_path, granularity).convert()
    found = list_weights(module)
    for weight, layer in zip(found, [*convs, deployed.head.fc], strict=True):
        torch.testing.assert_close(weight, layer.weight.detach(), rtol=1e-6, atol=0)
    plan = make_plan(EXECUTORCH, QuantizationSettings())
    assert (plan.rounds_adaptively, plan.source.name) == (True, 'torch.export')


def test_a_large_bias_of_a_small_channel(network, tmp_path):
    """It must fit into 32 bits as a number of steps, and so makes the step larger."""
    deployed = copy.deepcopy(network.deployed)
    conv = deployed.get_submodule(f'{CONVS[1]}.branch_reparam')
    conv.weight.data[0] *= 1e-9
    conv.bias.data[0] = 3.0
    with torch.no_grad():
        expected = SimpleNamespace(scores=deployed(network.x))
    exported = run(calibrate(EXECUTORCH, deployed, network, tmp_path), EXECUTORCH, network, tmp_path)
    assert measure_error(exported(network.x), expected) < 0.1


def test_scores_are_neither_cut_nor_rounded(network, tmp_path):
    """Scores of images unlike those of the calibration: five times as much contrast."""
    int8 = calibrate(EXECUTORCH, network.deployed, network, tmp_path)
    scores = run(int8, EXECUTORCH, network, tmp_path, set(LAYERS) - {'head.fc'})(5 * network.x)
    with torch.no_grad():
        expected = network.deployed(5 * network.x)
    assert expected.abs().max() > 2 * network.scores.abs().max()
    assert (scores - expected).abs().max() < 0.02 * expected.abs().max()
    assert len(scores.unique()) > 0.95 * scores.numel()


def test_a_layer_that_never_fires(network, tmp_path):
    """The step of its output must not be so small that XNNPACK refuses it."""
    deployed = copy.deepcopy(network.deployed)
    deployed.get_submodule(f'{CONVS[2]}.branch_reparam').bias.data.fill_(-1000)
    with torch.no_grad():
        expected = deployed(network.x)
    exported = run(calibrate(EXECUTORCH, deployed, network, tmp_path), EXECUTORCH, network, tmp_path)
    assert (exported(network.x) - expected).abs().max() < 0.05 * expected.abs().max()


def test_one_batch_size_and_the_other_calibration(network, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # PyTorch's are not for the user
        int8 = calibrate(EXECUTORCH, network.deployed, network, tmp_path, calibration='histogram')
        exported = run(int8, EXECUTORCH, network, tmp_path, batch_size=2)
    assert int8.ranges != calibrate(EXECUTORCH, network.deployed, network, tmp_path).ranges
    assert exported.metadata.batch_size == 2
    scores = exported(network.x[:5])
    torch.testing.assert_close(exported(network.x[4:5]), scores[4:], rtol=0, atol=1e-6)
    assert measure_error(scores, SimpleNamespace(scores=network.scores[:5])) < 0.1


def test_se_layers_preprocessing_and_any_size(network, randomise, tmp_path):
    torch.manual_seed(0)
    model = reparameterize(randomise(build_classifier(SMALL_CLASSIFIER)).eval())
    torch.nn.init.normal_(model.head.fc.weight)
    metadata = replace(METADATA, with_preprocess=True, mean=(120.0,) * 3, std=(60.0,) * 3, dynamic_size=True)
    images = torch.randint(256, (40, 3, 32, 32)).to(torch.uint8)
    changed = SimpleNamespace(metadata=metadata, calibration=[images.numpy()])
    int8 = calibrate(EXECUTORCH, model, changed, tmp_path)
    assert sum('se_layer' in layer for layer in int8.layers) == 10
    exported = run(int8, EXECUTORCH, changed, tmp_path)
    for size in (32, 50, 64):
        images = torch.randint(256, (5, 3, size, size)).to(torch.uint8)
        with torch.no_grad():
            expected = model((images.flip(1).float() - 120) / 60)
        assert (exported(images) - expected).std() < 0.1 * expected.std()


def test_nothing_is_said_by_the_libraries(workspace):
    few = ('--num-samples', '8', '--eval-samples', '8')
    done = run_tool('quantize', SMALL, 'small.pth', 'net.pte', *few, cwd=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'torch/' not in done.stderr
    assert not re.search(r'^[IWE]\d{4} ', done.stderr, re.MULTILINE)


class TestGivenRanges:
    RANGES = {layer: (0.0, 12.0 + index) for index, layer in enumerate(CONVS)} | {CONVS[0]: (-2.0, 3.1)}

    def use(self, row, network, folder, ranges, **options):
        (quantizer,) = row.quantizers
        source = write_float(quantizer.source or row, network.deployed, network.metadata, folder)
        return quantizer.use_ranges(source, ranges, **options)

    # the range of an output is known if it is the input of the next convolution that has one
    @pytest.mark.parametrize(
        ('granularity', 'layers', 'int8_layers'),
        [('per-channel', CONVS, CONVS[:-1]), ('per-tensor', [*CONVS[:2], CONVS[3]], CONVS[:1])],
    )
    def test_it_computes_what_onnx_runtime_does(self, network, tmp_path, granularity, layers, int8_layers):
        scores = []
        for row, expected in ((EXECUTORCH, int8_layers), (ONNX, layers)):
            ranges = {layer: self.RANGES[layer] for layer in layers}
            int8 = self.use(row, network, tmp_path, ranges, granularity=granularity)
            scores.append(run(int8, row, network, tmp_path)(network.x))
            assert [layer for layer, is_int8 in int8.layers.items() if is_int8] == expected
            if row is EXECUTORCH:
                assert len(list_rounded(int8.convert())) == len(layers)
        assert measure_error(scores[1], network) > 0.02
        assert measure_error(scores[0], SimpleNamespace(scores=scores[1])) < 0.01

    def test_a_range_without_zero(self, network, tmp_path):
        ranges = self.RANGES | {CONVS[1]: (0.5, 13.0)}
        module = self.use(EXECUTORCH, network, tmp_path, ranges, granularity='per-channel').convert()
        steps = [node.args[1:3] for node in list_rounded(module)]
        assert steps[0] == (pytest.approx(5.1 / 255), -28)
        assert steps[1] == (pytest.approx(13 / 255), -128)

    @pytest.mark.parametrize(
        ('ranges', 'message'),
        [
            ({'head.fc': (0, 1)}, r"must name convolutions .*backbone\.stem, .* got 'head\.fc'"),
            ({CONVS[-1]: (0, 1)}, 'ExecuTorch needs the range of the output of a convolution, too'),
        ],
    )
    def test_ranges_that_do_not_fit(self, network, tmp_path, ranges, message):
        with pytest.raises(ValueError, match=message):
            self.use(EXECUTORCH, network, tmp_path, ranges, granularity='per-channel')
