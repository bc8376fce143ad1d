"""LiteRT files: what is in them, and what is refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from int8_source import METADATA
from small_classifier import SMALL_CLASSIFIER
from tool_runs import run_tool
from torch import nn

from mmrepvgg import build_classifier, reparameterize
from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.runtimes.litert import LITERT
from mmrepvgg.runtimes.litert_graph import iterate_operators, name_tensors, parse_model
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.network import ExportError


@pytest.fixture
def content(small_cfg, export_once):
    return export_once(small_cfg, '.tflite')[1].read_bytes()


def test_the_graph_is_fused_and_named(content):
    model = parse_model(content)
    (graph,) = model.subgraphs
    names = {index: tensor.name.decode() for index, tensor in enumerate(graph.tensors)}
    layers = [names[op.outputs[0]] for op, kind in iterate_operators(model) if kind in ('CONV_2D', 'FULLY_CONNECTED')]
    blocks = ['backbone.stem', *(f'backbone.stage_{stage}.0' for stage in (1, 2, 3, 4))]
    squeezes = ('se_layer.conv1.conv', 'se_layer.conv2.conv')
    assert layers == [*(name for block in blocks for name in (block, *(f'{block}.{s}' for s in squeezes))), 'head.fc']
    assert names[graph.inputs[0]] == 'images'
    (signature,) = model.signatureDefs
    assert [(part.name, part.tensorIndex) for part in (*signature.inputs, *signature.outputs)] == [
        (b'images', graph.inputs[0]),
        (b'scores', graph.outputs[0]),
    ]
    assert len(set(names.values())) == len(names)
    assert not [name for name in names.values() if 'mmrepvgg' in name or 'torch' in name]
    weight = graph.tensors[list(names.values()).index('backbone.stage_2.0.weight')]
    assert list(weight.shape) == [32, 3, 3, 16]


def test_other_layers_than_the_models(content):
    with pytest.raises(ExportError, match=r'must have the 1 layers of the model, got 16'):
        name_tensors(parse_model(content), ['head.fc'])


def test_constants_that_are_stored_once_belong_to_no_layer(tmp_path):
    """And a layer may have no bias."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(2704, 10, False)
    )
    for conv in model[1:3]:
        nn.init.zeros_(conv.bias)
    LITERT.write(model, tmp_path / 'net.tflite', replace(METADATA, precision='fp32'))
    graph = parse_model((tmp_path / 'net.tflite').read_bytes()).subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    assert [name for name in names if name.endswith('weight')] == ['4.weight', '2.weight', '1.weight', '0.weight']
    assert not [name for name in names if name.endswith('bias')]
    assert names[graph.outputs[0]] == '4'


def test_the_runtimes_own_interface(small_cfg, small_source, content):
    """What docs/runtimes.md says of a program without this project."""
    from ai_edge_litert.interpreter import Interpreter

    from mmrepvgg.runtimes.classifier import load_classifier

    run = Interpreter(model_content=content).get_signature_runner()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = load_classifier(small_cfg, small_source)(images)
    np.testing.assert_allclose(run(images=images.numpy())['scores'], expected, rtol=0, atol=2e-5)


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='Linux lists the threads of a process')
def test_the_number_of_threads(small_cfg, export_once):
    path, images = export_once(small_cfg, '.tflite')[1], torch.zeros(1, 3, 32, 32)
    counts, kept = [], []
    for num_threads in (None, 1, 4):
        kept.append(load_exported(path, num_threads=num_threads))
        kept[-1](images)
        counts.append(len(os.listdir('/proc/self/task')))
    # the thread that asks is one of them
    assert [count - counts[0] for count in counts] == [0, 0, 3]


def test_half_precision_is_in_the_weights(small_cfg, content, export_once):
    from ai_edge_litert.schema_py_generated import TensorType

    export, path = export_once(small_cfg, '.tflite', precision='fp16')
    assert 1e-6 < export.difference < 1e-2
    assert path.stat().st_size < 0.6 * len(content)
    kinds = {tensor.name.decode(): tensor.type for tensor in parse_model(path.read_bytes()).subgraphs[0].tensors}
    assert {kind for name, kind in kinds.items() if name.endswith('.weight')} == {TensorType.FLOAT16}
    exported = load_exported(path)
    assert (exported.metadata.precision, exported.computes_in) == ('fp16', 'fp32')


def test_the_file_says_which_batch_size_it_has(small_cfg, content, export_once):
    path = export_once(small_cfg, '.tflite', dynamic_batch=False, batch_size=3)[1]
    for data, size in ((content, 1), (path.read_bytes(), 3)):
        (graph,) = parse_model(data).subgraphs
        assert list(graph.tensors[graph.inputs[0]].shape) == [size, 3, 32, 32]
        assert list(graph.tensors[graph.outputs[0]].shape) == [size, 10]


class TestOneChannel:
    """The converter moves the channels of such images by a reshape to a fixed size."""

    def make(self, randomise):
        backbone = SMALL_CLASSIFIER['backbone'] | dict(in_channels=1)
        return reparameterize(randomise(build_classifier(SMALL_CLASSIFIER | dict(backbone=backbone)).eval()))

    def test_any_batch_size(self, randomise, tmp_path):
        model = self.make(randomise)
        metadata = replace(METADATA, channels=1, precision='fp32')
        LITERT.write(model, tmp_path / 'net.tflite', metadata)
        exported = load_exported(tmp_path / 'net.tflite')
        for num in (1, 3):
            images = torch.randn(num, 1, 32, 32)
            with torch.no_grad():
                torch.testing.assert_close(exported(images), model(images), rtol=0, atol=2e-5)
        assert exported(images[:0]).shape == (0, 10)

    def test_any_height_and_width_are_refused(self, randomise, tmp_path):
        metadata = replace(METADATA, channels=1, precision='fp32', dynamic_size=True)
        with pytest.raises(ExportError, match=r'must have a fixed height and width, .* a reshape.*`dynamic_size`'):
            LITERT.write(self.make(randomise), tmp_path / 'net.tflite', metadata)


class TestDamage:
    """LiteRT itself runs most damaged files, and some end its process. So nothing damaged gets as far as that."""

    def load(self, content, folder):
        (folder / 'net.tflite').write_bytes(content)
        return load_exported(folder / 'net.tflite')

    def test_cut_off(self, content, tmp_path):
        for length in (0, 7, 8, 100, 3000, len(content) // 2, len(content) - 1):
            with pytest.raises(CheckpointError, match=r'net\.tflite is (damaged|no LiteRT file)'):
                self.load(content[:length], tmp_path)

    def test_flipped_bits(self, content, tmp_path):
        # places all over the file, and the name of the hash itself
        places = [*range(0, len(content), len(content) // 40), content.index(b'SHA-256 ') + 2]
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 16
            with pytest.raises(CheckpointError, match=r'net\.tflite is (damaged|no LiteRT file)'):
                self.load(damaged, tmp_path)

    def test_appended(self, content, tmp_path):
        with pytest.raises(CheckpointError, match='is damaged'):
            self.load(content + b'more', tmp_path)

    def test_of_others(self, content, tmp_path):
        from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray

        model = parse_model(content)
        model.metadata = None
        for part in model.buffers[-2:]:
            part.data = None
        with pytest.raises(ValueError, match=r'net\.tflite holds no metadata of mmrepvgg'):
            self.load(bytes(convert_object_to_bytearray(model)), tmp_path)


class TestTool:
    @pytest.mark.parametrize(
        ('command', 'package', 'extra'),
        [('test', 'ai_edge_litert', 'litert'), ('export', 'litert_torch', 'litert-export')],
    )
    def test_the_extra_that_is_missing(self, small_cfg, small_source, tmp_path, command, package, extra):
        (tmp_path / 'net.tflite').write_bytes(b'')
        small_cfg.dump(tmp_path / 'config.py')
        args = ['config.py', *([small_source] if command == 'export' else []), 'net.tflite']
        done = run_tool(command, *args, cwd=tmp_path, without=['torch', package])
        assert done.returncode == 1
        assert done.stderr == (
            f'{command}.py: error: LiteRT files need {package}, not installed here: pip install "mmrepvgg[{extra}]"\n'
        )

    def test_it_says_no_more_than_for_other_files(self, small_cfg, small_source, tmp_path):
        small_cfg.dump(tmp_path / 'config.py')
        done = run_tool('export', 'config.py', small_source, 'net.tflite', cwd=tmp_path)
        assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 3, '')
        assert sorted(os.listdir(tmp_path)) == ['config.py', 'net.tflite']
        content = (tmp_path / 'net.tflite').read_bytes()
        assert os.fsencode(tmp_path) not in content
        assert b'site-packages' not in content
