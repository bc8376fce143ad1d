"""The description in an exported file, which may say anything; and what of a file must not reach its runtime."""

import dataclasses
import json

import pytest
import torch

from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.checkpoints.seals import SEAL_ENTRY
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.metadata import ExportMetadata
from mmrepvgg.runtimes.onnx_files import check_onnx, save_proto

GOOD = ExportMetadata(
    arch='A0', classes=('a', 'b'), num_classes=2, channels=3, input_size=(32, 32), batch_size=None, mean=(1.0, 2, 3),
    std=(1.0, 2, 3), to_rgb=True, precision='fp32', with_preprocess=False, softmax=False, source_sha256='', version='1',
    pipeline=(dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=[32, 32]), dict(type='PackInputs')),
)  # fmt: skip


def test_the_description_is_read_as_it_was_written():
    assert ExportMetadata.from_json(GOOD.to_json(), 'net.x') == GOOD


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('arch', 3),
        ('classes', 'ab'),
        ('classes', ['a']),
        ('classes', [1, 2]),
        ('num_classes', '2'),
        ('num_classes', True),
        ('num_classes', 1 << 40),
        ('channels', 0),
        ('input_size', [32]),
        ('input_size', 32),
        ('input_size', [32, -1]),
        ('batch_size', 0),
        ('batch_size', 'x'),
        ('mean', [1.0, float('nan'), 3.0]),
        ('mean', 'abc'),
        ('std', [1.0, 2.0]),
        ('std', [1.0, 0.0, 2.0]),
        ('to_rgb', 'yes'),
        ('precision', '\x1b[2J'),
        ('dynamic_size', None),
        ('pipeline', 'Resize'),
        ('pipeline', ['Resize']),
        ('pipeline', [dict(scale=32)]),
        # a registry would run these
        ('pipeline', [dict(type='os.system', command='ls')]),
        ('pipeline', [dict(type='Resize', scale=32, pad=dict(type='os.system'))]),
        ('pipeline', [dict(type='Resize', scale=dict(type='os.system'))]),
        ('pipeline', [dict(type='Resize', scale=1 << 40)]),
        ('pipeline', [dict(type='LoadImageFromFile', backend_args=dict(backend='x'))]),
    ],
)
def test_a_description_that_makes_no_sense(name, value):
    text = json.dumps(dataclasses.asdict(GOOD) | {name: value})
    with pytest.raises(ValueError, match=rf'net\.x has metadata that make no sense: {name} is .*; export again'):
        ExportMetadata.from_json(text, 'net.x')


@pytest.mark.parametrize('text', [None, '', '{}', '[]', '1', 'x', '[' * 200_000, '{"a":' * 200_000])
def test_no_description(text):
    with pytest.raises(ValueError, match=r'net\.x holds no metadata of mmrepvgg'):
        ExportMetadata.from_json(text, 'net.x')


class TestOnnx:
    def make(self, nodes, **tensors):
        from onnx import TensorProto, helper, numpy_helper

        images = helper.make_tensor_value_info('images', TensorProto.FLOAT, ['N', 3, 32, 32])
        scores = helper.make_tensor_value_info('scores', TensorProto.FLOAT, None)
        weights = [numpy_helper.from_array(value.numpy(), name) for name, value in tensors.items()]
        model = helper.make_model(helper.make_graph(nodes, 'net', [images], [scores], weights), ir_version=8)
        model.opset_import[0].version = 17
        return model

    def make_body(self):
        from onnx import TensorProto, helper

        names = [('i', TensorProto.INT64, []), ('go', TensorProto.BOOL, []), ('x', TensorProto.FLOAT, None)]
        inputs = [helper.make_tensor_value_info(*each) for each in names]
        nodes = [helper.make_node('Identity', [name], [f'{name}_out']) for name in ('go', 'x')]
        outputs = [helper.make_tensor_value_info(f'{name}_out', kind, shape) for name, kind, shape in names[1:]]
        return helper.make_graph(nodes, 'body', inputs, outputs)

    def test_an_endless_loop(self, tmp_path):
        """With the hash that anybody can write."""
        from onnx import helper

        loop = helper.make_node('Loop', ['', 'go', 'images'], ['scores'], body=self.make_body())
        save_proto(self.make([loop], go=torch.tensor(True)), tmp_path / 'net.onnx', GOOD)
        with pytest.raises(CheckpointError, match=r'net\.onnx has loops or branches, .* may never end'):
            load_exported(tmp_path / 'net.onnx')

    def test_a_loop_in_a_function(self, tmp_path):
        from onnx import helper

        loop = helper.make_node('Loop', ['', 'go', 'x'], ['y'], body=self.make_body())
        opsets = [helper.make_opsetid('', 17)]
        model = self.make([helper.make_node('F', ['go', 'images'], ['scores'], domain='own')])
        model.functions.append(helper.make_function('own', 'F', ['go', 'x'], ['y'], [loop], opsets))
        save_proto(model, tmp_path / 'net.onnx', GOOD)
        with pytest.raises(CheckpointError, match=r'net\.onnx has loops or branches, .* may never end'):
            check_onnx(tmp_path / 'net.onnx')

    def test_weights_in_other_files(self, tmp_path):
        from onnx import helper, save

        model = self.make([helper.make_node('Add', ['images', 'w'], ['scores'])], w=torch.zeros(1000))
        save(model, tmp_path / 'net.onnx', save_as_external_data=True, location='net.data')
        with pytest.raises(CheckpointError, match=r'net\.onnx has its weights in other files'):
            load_exported(tmp_path / 'net.onnx')

    def test_what_another_tool_changed(self, small_cfg, export_once, tmp_path):
        import onnx

        model = onnx.load(export_once(small_cfg, '.onnx')[1])
        model.producer_name = 'another tool'
        onnx.save(model, tmp_path / 'net.onnx')
        with pytest.raises(CheckpointError, match=rf'net\.onnx is damaged, or was changed .* its entry {SEAL_ENTRY}'):
            load_exported(tmp_path / 'net.onnx')
        kept = [entry for entry in model.metadata_props if entry.key != SEAL_ENTRY]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        onnx.save(model, tmp_path / 'net.onnx')
        images = torch.rand(1, 3, 32, 32)
        expected = load_exported(export_once(small_cfg, '.onnx')[1])(images)
        assert torch.equal(load_exported(tmp_path / 'net.onnx')(images), expected)
