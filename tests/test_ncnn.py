"""ncnn's pairs of files."""

import shutil

import numpy as np
import pytest
import torch
from file_kinds import list_files
from int8_source import CONVS, LAYERS, METADATA
from tool_runs import SMALL, succeed_here

from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.ncnn_files import Layer, get_weights_path, read_layers, write_layers
from mmrepvgg.runtimes.ncnn_int8 import NcnnQuantizer
from mmrepvgg.runtimes.ncnn_network import load_network


@pytest.fixture
def pair(small_cfg, export_once, tmp_path):
    for file in list_files(export_once(small_cfg, '.param')[1]):
        shutil.copy(file, tmp_path)
    return tmp_path / 'net.param'


def test_the_graph_is_fused_and_has_the_models_names(pair):
    layers = read_layers(pair, get_weights_path(pair))
    convolutions = [layer for layer in layers if layer.type == 'Convolution']
    names = [layer.name for layer in convolutions]
    assert names == [f'model.{name}.branch_reparam' for name in CONVS if name != 'backbone.stage_3.1']
    assert {layer.type for layer in layers} <= {
        *('Input', 'Split', 'Convolution', 'Pooling', 'InnerProduct', 'BinaryOp', 'ReLU')
    }
    assert (layers[0].outputs, layers[-1].outputs) == (['images'], ['scores'])
    assert str(pair.parent) not in pair.read_text()


def test_the_weights_of_openvino_are_another_file(pair):
    assert get_weights_path(pair).name == 'net.ncnn.bin'
    assert get_weights_path(pair.with_name('net.ncnn.param')).name == 'net.ncnn.bin'


class TestDamage:
    def refuse(self, pair, message, error=CheckpointError):
        with pytest.raises(error, match=message):
            load_exported(pair)

    def test_other_weights(self, pair):
        weights = get_weights_path(pair)
        content = bytearray(weights.read_bytes())
        content[1000] ^= 1
        weights.write_bytes(content)
        self.refuse(pair, r'net\.ncnn\.bin is not the file that was written with .*net\.param; export again')
        weights.unlink()
        self.refuse(pair, r'net\.ncnn\.bin does not exist; an ncnn model is two files', FileNotFoundError)

    @pytest.mark.parametrize('position', range(0, 1200, 150))
    def test_a_changed_graph(self, pair, position):
        content = bytearray(pair.read_bytes())
        content[position] ^= 1
        pair.write_bytes(content)
        self.refuse(pair, r'net\.param (was changed after it was written, or )?is damaged')

    def test_a_cut_graph(self, pair):
        content = pair.read_bytes()
        for length in (0, 5, len(content) // 2, len(content) - 40):
            pair.write_bytes(content[:length])
            with pytest.raises(ValueError, match=r'net\.param (is damaged|holds no metadata)'):
                load_exported(pair)

    def test_a_file_of_others(self, pair):
        pair.write_text(pair.read_text().rpartition('\n')[0].rpartition('\n')[0] + '\n')
        self.refuse(pair, r'net\.param holds no metadata of mmrepvgg', ValueError)
        pair.write_bytes(b'\x85\xff\x00')
        self.refuse(pair, r'net\.param is damaged, or is no \.param of ncnn in text form')

    def test_weights_of_another_graph_are_not_quantized(self, pair):
        weights = get_weights_path(pair)
        weights.write_bytes(weights.read_bytes() + bytes(4))
        with pytest.raises(ValueError, match=r'has \d+ bytes, but the layers of .*net\.param take \d+'):
            read_layers(pair, weights)


def test_the_number_of_threads(pair):
    assert load_network(pair, 3).opt.num_threads == 3
    assert load_network(pair).opt.num_threads == torch.get_num_threads()


class TestInt8:
    def quantize(self, tmp_path, weight, inputs, granularity='per-channel', **params):
        num_outputs = len(weight)
        size = {'0': num_outputs, '1': 1, '5': 0, '6': weight.size, **params}
        layer = Layer(
            'ConvolutionDepthWise' if '7' in params else 'Convolution', 'conv', ['images'], ['scores'],
            {key: str(value) for key, value in size.items()}, weight.ravel(),
        )  # fmt: skip
        write_layers([Layer('Input', 'in', [], ['images'], {}), layer], tmp_path / 'float.param', METADATA.to_json())
        int8 = NcnnQuantizer().calibrate(
            tmp_path / 'float.param', [inputs], granularity=granularity, calibration='minmax'
        )
        int8.write(tmp_path / 'int8.param', METADATA)
        return int8, [load_exported(tmp_path / name) for name in ('float.param', 'int8.param')]

    @pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
    def test_weights_on_the_grid_stay(self, tmp_path, granularity):
        generator = np.random.default_rng(0)
        steps = generator.integers(-127, 128, (4, 3, 1, 1)).astype(np.float32)
        steps[:, 0] = 127
        if granularity == 'per-channel':
            steps *= np.array([1, 0.1, 3, 7], np.float32).reshape(-1, 1, 1, 1)
        # inputs on the grid, too
        inputs = generator.integers(-127, 128, (1, 3, 32, 32)).astype(np.float32)
        inputs[0, 0, 0, 0] = 127
        _, (plain, int8) = self.quantize(tmp_path, steps, inputs, granularity)
        x = torch.from_numpy(inputs)
        torch.testing.assert_close(int8(x), plain(x), rtol=1e-6, atol=1e-2)

    def test_each_channel_of_a_group_has_its_scale(self, tmp_path):
        generator = np.random.default_rng(0)
        weight = generator.normal(size=(16, 1, 1, 1)).astype(np.float32) * np.logspace(-4, 0, 16).reshape(-1, 1, 1, 1)
        inputs = np.abs(generator.normal(size=(2, 3, 32, 32))).astype(np.float32)
        weight = np.concatenate([weight] * 3)[:48].astype(np.float32)
        _, (plain, int8) = self.quantize(tmp_path, weight, inputs, **{'7': 3})
        x = torch.from_numpy(inputs)
        expected, found = (exported(x).flatten(2) for exported in (plain, int8))
        error = (found - expected).square().mean((0, 2)).sqrt() / expected.std((0, 2))
        assert len(error) == 48
        assert error.max() < 0.02


@pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
def test_int8_from_the_command_line(workspace, granularity):
    args = ('--granularity', granularity, '--num-samples', '60')
    report = succeed_here('quantize', SMALL, 'small.pth', f'{granularity}.param', *args, cwd=workspace)
    assert f'int8 {granularity}, rounded adaptively, calibrated by minmax on 60 training images' in report
    assert f'{len(LAYERS)} of {len(LAYERS)} layers in int8' in report
    points = float(report.rpartition('% in this file (')[2].partition(' points')[0])
    assert abs(points) <= 1.2
    # four times smaller, but for biases and scales
    assert 3 < float(report.partition(' times smaller')[0].rpartition(' ')[2]) < 4
    output = succeed_here('test', SMALL, f'{granularity}.param', '--metrics', 'accuracy', cwd=workspace)
    assert float(output.rpartition('accuracy/top1: ')[2].split()[0]) > 95
