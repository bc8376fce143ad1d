"""Checkpoints in, files for runtimes out."""

import hashlib
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from file_kinds import DYNAMIC_SIZES, GRAPHS, RUNNABLE, SUFFIXES, list_files, list_full_options, load_to_check
from tool_runs import fail_here, run_tool, succeed

from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.safetensors_files import write_safetensors
from mmrepvgg.quantization.analysis.analyze import analyze
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.export import ExportError, export_model
from mmrepvgg.runtimes.loading import load_exported

DIGITS = 'repvgg-a0_digits'
NUM_BLOCKS = 5


def make_images(num=3, size=32):
    return torch.randint(256, (num, 3, size, size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@torch.no_grad()
def expect(cfg, source, images, softmax=False):
    model = load_classifier(cfg, source)
    logits = model(model.data_preprocessor(dict(inputs=images.clone()))['inputs'])
    return logits.softmax(1) if softmax else logits


def normalise(images):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([120.0, 110.0, 90.0], [60.0, 50.0, 70.0]))
    return (images.flip(1).float() - mean) / std


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_every_format_computes_what_the_checkpoint_does(small_cfg, small_source, export_once, suffix):
    export, path = export_once(small_cfg, suffix)
    assert export.was_switched
    assert 0 <= export.difference < 1e-5
    exported = load_to_check(path)
    for num in (1, 3):
        images = make_images(num)
        logits = exported(normalise(images))
        assert logits.dtype == torch.float32
        expected = expect(small_cfg, small_source, images)
        assert expected.std() > 0.1
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    assert set(path.parent.iterdir()) == list_files(path), 'nothing beside it'


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_the_metadata_is_in_the_file(small_cfg, small_source, export_once, suffix):
    export, path = export_once(small_cfg, suffix)
    metadata = load_to_check(path).metadata
    assert metadata == export.metadata
    assert metadata.classes == tuple('abcdefghij')
    assert (metadata.num_classes, metadata.input_size, metadata.batch_size) == (10, (32, 32), None)
    assert (metadata.mean, metadata.std, metadata.to_rgb) == ((120.0, 110.0, 90.0), (60.0, 50.0, 70.0), True)
    assert (metadata.precision, metadata.with_preprocess, metadata.softmax) == ('fp32', False, False)
    assert metadata.source_sha256 == hashlib.sha256(small_source.read_bytes()).hexdigest()
    assert json.loads(metadata.arch)['num_blocks'] == [1, 1, 1, 1]


@pytest.mark.parametrize('suffix', GRAPHS)
def test_uint8_images_in_probabilities_out_half_precision_inside(small_cfg, small_source, export_once, suffix):
    options = list_full_options(suffix)
    export, path = export_once(small_cfg, suffix, **options)
    if options['precision'] == 'fp16':
        assert 0 < export.max_activation < 65504
    exported = load_to_check(path)
    assert exported.metadata.batch_size == options.get('batch_size')
    images = make_images(5)  # two batches and a tail for a file that takes 2
    scores = exported(images)
    torch.testing.assert_close(scores.sum(1), torch.ones(5))
    torch.testing.assert_close(scores, expect(small_cfg, small_source, images, softmax=True), rtol=0, atol=5e-3)
    torch.testing.assert_close(exported(images[4:]), scores[4:], rtol=0, atol=1e-5)
    if 'batch_size' in options:
        assert exported(images[:0]).shape == (0, 10)


@pytest.mark.parametrize('suffix', DYNAMIC_SIZES)
def test_any_height_and_width(small_cfg, small_source, export_once, suffix):
    export, path = export_once(small_cfg, suffix, dynamic_size=True)
    assert (export.num_inputs, export.metadata.dynamic_size) == (5, True)
    exported = load_to_check(path)
    for num, height, width in ((2, 32, 32), (1, 41, 64), (3, 96, 33)):
        images = torch.randint(256, (num, 3, height, width), generator=torch.Generator().manual_seed(num))
        expected = expect(small_cfg, small_source, images.to(torch.uint8))
        torch.testing.assert_close(exported(normalise(images)), expected, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match=r'takes images of the shape \(N, 3, H, W\), got \(1, 1, 32, 32\)'):
        exported(torch.zeros(1, 1, 32, 32))


def test_preprocessing_inside_is_that_of_the_model(small_cfg, small_source, tmp_path):
    # channels of other means and deviations, and logits: a softmax would hide which channel got which
    export_model(small_cfg, small_source, tmp_path / 'net.pt2', with_preprocess=True)
    images = make_images(5)
    logits = load_exported(tmp_path / 'net.pt2')(images)
    torch.testing.assert_close(logits, expect(small_cfg, small_source, images), rtol=0, atol=2e-5)


@pytest.mark.parametrize('suffix', ['.pt2', '.ts', '.safetensors'])
def test_bfloat16(small_cfg, export_once, suffix):
    export, path = export_once(small_cfg, suffix, precision='bf16')
    # less exact than float32 can be, so it was in effect; and the file is half as large
    assert 1e-4 < export.difference < 5e-2
    assert path.stat().st_size < 0.7 * export_once(small_cfg, suffix)[1].stat().st_size


def test_the_onnx_graph_is_fused(small_cfg, export_once):
    import onnx

    model = onnx.load(export_once(small_cfg, '.onnx')[1])
    onnx.checker.check_model(model, full_check=True)
    kernels = {tensor.name: tensor.dims[2:] for tensor in model.graph.initializer}
    convs = [kernels[node.input[1]] for node in model.graph.node if node.op_type == 'Conv']
    assert convs.count([3, 3]) == NUM_BLOCKS
    assert convs.count([1, 1]) == len(convs) - NUM_BLOCKS == 2 * NUM_BLOCKS  # the SE layers
    assert not [node for node in model.graph.node if 'Norm' in node.op_type]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ['images', 'scores']
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_openvino_graph_is_fused(small_cfg, export_once):
    import openvino

    path = export_once(small_cfg, '.xml')[1]
    model = openvino.Core().read_model(path)
    kernels = [list(op.input(1).get_shape())[2:] for op in model.get_ops() if op.get_type_name() == 'Convolution']
    assert kernels.count([3, 3]) == NUM_BLOCKS
    assert not [op for op in model.get_ops() if 'Norm' in op.get_type_name()]
    # full precision was asked for: 4 bytes a weight, which OpenVINO would have halved
    weights = torch.jit.load(export_once(small_cfg, '.ts')[1]).state_dict()
    num_weights = sum(tensor.numel() for name, tensor in weights.items() if name.endswith('weight'))
    assert path.with_suffix('.bin').stat().st_size >= 4 * num_weights
    half = export_once(small_cfg, '.xml', **list_full_options('.xml'))[1]
    assert half.with_suffix('.bin').stat().st_size < 2.2 * num_weights


def test_torchs_graphs_are_fused(small_cfg, export_once):
    graph = torch.export.load(export_once(small_cfg, '.pt2')[1]).graph
    targets = [str(node.target) for node in graph.nodes]
    assert sum('conv2d' in target for target in targets) == 3 * NUM_BLOCKS
    assert not [target for target in targets if 'norm' in target]
    text = str(torch.jit.load(export_once(small_cfg, '.ts')[1]).inlined_graph)
    assert text.count('aten::_convolution') == 3 * NUM_BLOCKS
    # operators; the name of the place for an inserted norm (an identity) is in the graph, too
    assert not re.search(r'aten::\w*norm', text)


@pytest.mark.parametrize('deploy', [False, True])
def test_a_deploy_checkpoint_with_either_config(small_cfg, small_source, export_once, deploy, tmp_path):
    reparameterize_checkpoint(small_cfg, small_source, tmp_path / 'deploy.pth')
    small_cfg.model.backbone.deploy = deploy
    export = export_model(small_cfg, tmp_path / 'deploy.pth', tmp_path / 'net.ts')
    assert not export.was_switched
    x = normalise(make_images())
    expected = load_exported(export_once(small_cfg, '.ts')[1])(x)
    torch.testing.assert_close(load_exported(tmp_path / 'net.ts')(x), expected, rtol=0, atol=1e-5)


def test_a_safetensors_file_has_the_deploy_forms_keys(small_cfg, small_source, export_once, tmp_path):
    from safetensors.torch import load_file

    reparameterize_checkpoint(small_cfg, small_source, tmp_path / 'deploy.pth')
    expected = read_checkpoint(tmp_path / 'deploy.pth').state_dict
    torch.testing.assert_close(load_file(export_once(small_cfg, '.safetensors')[1]), expected, rtol=0, atol=1e-6)


def test_a_safetensors_file_builds_known_parts_only(small_cfg, export_once, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = export_once(small_cfg, '.safetensors')[1]
    with safe_open(path, 'pt') as file:
        record = file.metadata()
    record['mmrepvgg_model'] = record['mmrepvgg_model'].replace('GlobalAveragePooling', 'os.system')
    save_file(load_file(path), tmp_path / 'net.safetensors', record)
    with pytest.raises(
        CheckpointError, match='is damaged, or was changed: its content does not have the SHA-256 in it'
    ):
        load_exported(tmp_path / 'net.safetensors')
    whole = record['mmrepvgg_model'].replace('os.system', 'GlobalAveragePooling')
    for old, new, message in (
        ('GlobalAveragePooling', 'os.system', r'must describe a classifier of this project, got os\.system'),
        ('"arch"', '"_scope_": "os", "arch"', 'must describe a classifier of this project, got _scope_'),
        ('[1, 1, 1, 1]', '[1, 1, 1, 99999999999]', 'describes more blocks than it has weights'),
        ('[0.25', '[1e6', r'the weights in .*net\.safetensors do not fit the model'),
        ('"arch"', '"other": 3, "arch"', "unexpected keyword argument 'other'"),
        (whole, '[' * 100_000, 'is damaged or incomplete: '),
        (whole, '{}', 'must describe a classifier of this project, got none'),
        (whole, '{"type": "ImageClassifier"}', 'is damaged or incomplete: '),
    ):
        assert old in whole
        # with the hash that anybody can write
        content = record | dict(mmrepvgg_model=whole.replace(old, new, 1))
        write_safetensors(load_file(path), tmp_path / 'net.safetensors', content)
        with pytest.raises(CheckpointError, match=message):
            load_exported(tmp_path / 'net.safetensors')


@pytest.mark.parametrize(
    ('opset', 'options'),
    [(11, {}), (13, dict(precision='fp16', with_preprocess=True, softmax=True)), (17, {}), (18, {})],
)
def test_opset(small_cfg, small_source, tmp_path, opset, options):
    """The export compares each with PyTorch."""
    import onnx

    export_model(small_cfg, small_source, tmp_path / 'net.onnx', opset=opset, **options)
    model = onnx.load(tmp_path / 'net.onnx')
    assert [found.version for found in model.opset_import if not found.domain] == [opset]
    onnx.checker.check_model(model, full_check=True)
    assert load_exported(tmp_path / 'net.onnx').metadata.classes == tuple('abcdefghij')


@pytest.mark.parametrize('suffix', ['.onnx', '.pt2', '.xml'])
def test_files_do_not_tell_where_they_were_made(small_cfg, export_once, suffix):
    content = export_once(small_cfg, suffix)[1].read_bytes()
    if suffix == '.pt2':
        with zipfile.ZipFile(export_once(small_cfg, suffix)[1]) as archive:
            content = b''.join(map(archive.read, archive.namelist()))
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert str(Path(__file__).parents[1]).encode() not in content


def test_names_of_fewer_classes_than_the_head_has(small_cfg, small_source, tmp_path):
    content = torch.load(small_source)
    content['meta'] = dict(dataset_meta=dict(classes=['cat', 'dog']))
    torch.save(content, tmp_path / 'two.pth')
    export = export_model(small_cfg, tmp_path / 'two.pth', tmp_path / 'net.ts')
    assert export.metadata.classes == ('cat', 'dog', '2', '3', '4', '5', '6', '7', '8', '9')


def test_weights_that_are_not_finite(small_cfg, small_source, tmp_path):
    content = torch.load(small_source)
    content['state_dict']['head.fc.bias'][0] = torch.nan
    torch.save(content, tmp_path / 'nan.pth')
    with pytest.raises(CheckpointError, match=r'nan\.pth: head\.fc\.bias has values that are NaN or infinite'):
        export_model(small_cfg, tmp_path / 'nan.pth', tmp_path / 'net.ts', precision='fp16')


def test_outputs_that_are_not_finite_differ(small_cfg, small_source, tmp_path):
    state_dict = dict(read_checkpoint(small_source).state_dict)
    state_dict['head.fc.weight'] = torch.full_like(state_dict['head.fc.weight'], 3e38)
    torch.save(state_dict, tmp_path / 'large.pth')
    with pytest.raises(ExportError, match=r'differs from PyTorch by nan'):
        export_model(small_cfg, tmp_path / 'large.pth', tmp_path / 'net.ts')
    assert not (tmp_path / 'net.ts').exists()


def test_a_file_that_differs_is_not_kept(small_cfg, small_source, tmp_path):
    for name in ('net.xml', 'net.bin', 'net.ts'):
        (tmp_path / name).write_text('precious')
    for name in ('net.ts', 'net.xml'):
        with pytest.raises(ExportError, match=r'differs from PyTorch by .* more than the tolerance of 1e-12'):
            export_model(small_cfg, small_source, tmp_path / name, precision='fp16', tolerance=1e-12)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ('net.xml', 'net.bin', 'net.ts'), 'precious'
    )


@pytest.mark.parametrize(
    ('value', 'message'), [(1e6, r'head\.fc\.weight reaches 1e\+06'), (6e4, r'the output of head\.fc reaches')]
)
def test_fp16_is_refused_where_it_would_overflow(small_cfg, small_source, tmp_path, value, message):
    state_dict = dict(read_checkpoint(small_source).state_dict)
    state_dict['head.fc.weight'] = torch.full_like(state_dict['head.fc.weight'], value)
    torch.save(state_dict, tmp_path / 'large.pth')
    with pytest.raises(ExportError, match=message):
        export_model(small_cfg, tmp_path / 'large.pth', tmp_path / 'net.ts', precision='fp16')
    assert not (tmp_path / 'net.ts').exists()


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('net.onnx', dict(precision='bf16'), 'precision of ONNX files must be one of fp32, fp16, got bf16'),
        ('net.safetensors', dict(softmax=True), 'safetensors files have no softmax; leave out'),
        ('net.ts', dict(dynamic_batch=False), 'TorchScript files have no fixed batch size'),
        ('net.param', dict(dynamic_batch=False), 'ncnn files have no fixed batch size'),
        ('net.param', dict(precision='bf16'), 'precision of ncnn files must be one of fp32, fp16, got bf16'),
        ('net.pt2', dict(opset=18), r'torch\.export files have no opset; leave out'),
        ('net.onnx', dict(opset=10), '`opset` must be at least 11, got 10'),
        ('net.plan', {}, r'must end in \.onnx, \.xml, .*, got .*net\.plan'),
    ],
)
def test_what_a_format_does_not_have(small_cfg, small_source, tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        export_model(small_cfg, small_source, tmp_path / name, **options)


def test_the_input_size(small_cfg, small_source, tmp_path):
    cv2.imwrite(str(tmp_path / 'image.png'), make_images(1, size=40)[0].permute(1, 2, 0).numpy())
    export = export_model(small_cfg, small_source, tmp_path / 'net.ts', data=tmp_path / 'image.png')
    assert (export.metadata.input_size, export.num_inputs) == ((32, 32), 1)
    with pytest.raises(ExportError, match=r'gives images of the shape \(3, 32, 32\), but the file takes'):
        export_model(small_cfg, small_source, tmp_path / 'net.ts', data=tmp_path, input_size=(64, 48))
    export_model(small_cfg, small_source, tmp_path / 'net.ts', input_size=(64, 48))
    with pytest.raises(ValueError, match=r'takes images of the shape \(N, 3, 64, 48\), got \(1, 3, 32, 32\)'):
        load_exported(tmp_path / 'net.ts')(torch.zeros(1, 3, 32, 32))
    small_cfg.test_dataloader.dataset.pipeline[1] = dict(type='ResizeEdge', scale=32)
    with pytest.raises(ValueError, match=r'images of no fixed size .* `input_size`'):
        export_model(small_cfg, small_source, tmp_path / 'net.ts')


class TestLoading:
    def test_openvinos_two_files_must_be_a_pair(self, small_cfg, export_once, tmp_path):
        path = export_once(small_cfg, '.xml')[1]
        (tmp_path / 'net.xml').write_bytes(path.read_bytes())
        with pytest.raises(FileNotFoundError, match=r'net\.bin does not exist; an OpenVINO model is two files'):
            load_exported(tmp_path / 'net.xml')
        weights = bytearray(path.with_suffix('.bin').read_bytes())
        weights[100] ^= 1
        (tmp_path / 'net.bin').write_bytes(weights)
        with pytest.raises(CheckpointError, match=r'net\.bin is not the file that was written with .*net\.xml'):
            load_exported(tmp_path / 'net.xml')

    def crafted_pt2(self, source, target, change):
        """A copy in which ``change`` gives the content of each member by its name and its old content."""
        with zipfile.ZipFile(source) as good, zipfile.ZipFile(target, 'w') as evil:
            for member in good.namelist():
                evil.writestr(member, change(member.partition('/')[2], good.read(member)))
        return target

    def test_pickles_in_a_pt2_file_are_not_run(self, small_cfg, export_once, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / 'ran'),)

        def add_pickle(name, content):
            return pickle.dumps(Evil()) if name == 'data/sample_inputs/model.pt' else content

        target = self.crafted_pt2(export_once(small_cfg, '.pt2')[1], tmp_path / 'net.pt2', add_pickle)
        with pytest.raises(CheckpointError, match=r'refused, and nothing in it was run: .*model\.pt is a pickle'):
            load_exported(target)
        assert not (tmp_path / 'ran').exists()

    @pytest.mark.parametrize(
        ('old', 'new', 'message'),
        [
            ("Symbol('s", "__import__('os').mkdir('RAN') or Symbol('s", 'as expr_str, by which it could run code'),
            ('"guards_code": []', '"guards_code": ["__import__(\'os\').mkdir(\'RAN\')"]', 'it has guards_code'),
            ('"name": "images"', '"name": "images=__import__(\'os\').mkdir(\'RAN\')"', 'as name, by which'),
            ('torch.ops.aten.relu_', 'torch.ops.aten.from_file', 'as target, by which'),
            ('torch.ops.aten.relu_.default', 'torch.load', 'as target, by which'),
            ('builtins.tuple', 'os.system', 'as in_spec, by which'),
        ],
    )
    def test_code_in_a_pt2_file_is_not_run(self, small_cfg, export_once, tmp_path, monkeypatch, old, new, message):
        def replace(name, content):
            if name != 'models/model.json':
                return content
            assert old.encode() in content
            return content.replace(old.encode(), new.encode())

        monkeypatch.chdir(tmp_path)
        target = self.crafted_pt2(export_once(small_cfg, '.pt2')[1], tmp_path / 'net.pt2', replace)
        with pytest.raises(CheckpointError, match=rf'refused, and nothing in it was run: .*{message}'):
            load_exported(target)
        assert not (tmp_path / 'RAN').exists()

    @pytest.mark.filterwarnings('ignore:Duplicate name')
    @pytest.mark.parametrize('name', ['models/model.json', 'models/MODEL.json'])
    def test_two_members_of_one_name_in_a_pt2_file(self, small_cfg, export_once, tmp_path, name):
        target = self.crafted_pt2(
            export_once(small_cfg, '.pt2')[1], tmp_path / 'net.pt2', lambda name, content: content
        )
        with zipfile.ZipFile(target, 'a') as archive:
            folder = archive.namelist()[0].partition('/')[0]
            archive.writestr(f'{folder}/{name}', b'{}')
        with pytest.raises(CheckpointError, match='several members of one name|in capital letters only'):
            load_exported(target)

    @pytest.mark.parametrize('suffix', ['.pt2', '.ts'])
    def test_one_flipped_bit_in_the_weights(self, small_cfg, small_source, export_once, suffix, tmp_path):
        content = bytearray(export_once(small_cfg, suffix)[1].read_bytes())
        weight = torch.load(small_source)['state_dict']['head.fc.weight'].numpy().tobytes()
        content[content.index(weight) + 7] ^= 8
        (tmp_path / f'net{suffix}').write_bytes(content)
        with pytest.raises(CheckpointError, match=r'damaged or incomplete: .*(Bad CRC-32|checksum of .* is wrong)'):
            load_exported(tmp_path / f'net{suffix}')

    @pytest.mark.parametrize('suffix', RUNNABLE)
    def test_a_damaged_file(self, small_cfg, export_once, suffix, tmp_path):
        path = tmp_path / f'net{suffix}'
        for file in list_files(path) - {path}:
            file.write_bytes(b'')
        path.write_bytes(export_once(small_cfg, suffix)[1].read_bytes()[:3000])
        with pytest.raises(CheckpointError, match=r'net\.\w+'):
            load_exported(path)

    def test_a_file_of_others(self, tmp_path):
        torch.jit.script(torch.nn.Identity()).save(str(tmp_path / 'net.ts'))
        with pytest.raises(ValueError, match=r'net\.ts holds no metadata of mmrepvgg'):
            load_exported(tmp_path / 'net.ts')


class TestTool:
    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['net.plan'], 'must end in .onnx, .xml, '),
            (['net.onnx', '--precision', 'bf16'], 'precision of ONNX files must be one of fp32, fp16, got bf16'),
            (['net.onnx', '--batch-size', '2'], '--batch-size goes with --no-dynamic-batch'),
        ],
    )
    def test_wrong_usage_is_told_before_torch_is_imported(self, args, message, tmp_path):
        done = run_tool('export', DIGITS, 'none.pth', *args, cwd=tmp_path, without=['torch'])
        assert (done.returncode, done.stdout) == (2, '')
        assert message in done.stderr

    def test_a_missing_package_is_told_before_anything_slow(self, small_source, tmp_path):
        done = run_tool('export', DIGITS, small_source, 'net.onnx', cwd=tmp_path, without=['torch', 'onnxscript'])
        assert done.returncode == 1
        assert done.stderr == (
            'export.py: error: ONNX files need onnxscript, not installed here: pip install "mmrepvgg[onnx]"\n'
        )

    def test_success_and_failure(self, small_cfg, small_source, tmp_path):
        small_cfg.dump(tmp_path / 'config.py')
        out = tmp_path / 'net.ts'
        output = succeed('export', 'config.py', small_source, out, '--softmax', '--precision', 'fp16', cwd=tmp_path)
        assert 'train form, switched to deploy form' in output
        assert 'takes normalised float32 images (N, 3, 32, 32), gives 10 probabilities, fp16' in output
        assert 'on 3 noise input(s)' in output
        before = out.read_bytes()
        assert 'does not fit the model of the config' in fail_here('export', DIGITS, small_source, out, cwd=tmp_path)
        assert out.read_bytes() == before


def test_the_reference_of_these_tests(small_cfg, small_source):
    """That normalise() above is the config's preprocessing."""
    model = load_classifier(small_cfg, small_source)
    images = make_images()
    expected = model.data_preprocessor(dict(inputs=images.clone()))['inputs']
    np.testing.assert_array_equal(normalise(images), expected)


def test_several_labels_an_image_are_refused(small_cfg, small_source, tmp_path):
    small_cfg.model.head.type = 'MultiLabelLinearClsHead'
    settings = QuantizationSettings(eval_samples=0)
    for write, suffix, options in ((export_model, '.ts', {}), (quantize_model, '.onnx', dict(settings=settings))):
        with pytest.raises(ValueError, match='one label, and a MultiLabelLinearClsHead gives several'):
            write(small_cfg, small_source, tmp_path / f'net{suffix}', **options)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='one label, and a MultiLabelLinearClsHead gives several'):
        analyze(small_cfg, small_source, split='train')
