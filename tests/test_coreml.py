"""Core ML packages. They are computed by PyTorch here; a Mac also runs what test_exported.py does with every format."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_kinds import load_to_check
from PIL import Image
from tool_runs import fail_here, run_command, run_tool
from torch import nn

from mmrepvgg.benchmark.cases import RUNTIMES
from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.runtimes.coreml import COREML, CoremlFormat
from mmrepvgg.runtimes.coreml_package import MODEL, WEIGHTS, import_coremltools, seal_package
from mmrepvgg.runtimes.coreml_program import OPERATIONS, Program
from mmrepvgg.runtimes.export import ExportError, export_model
from mmrepvgg.runtimes.format import NoRuntimeError
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.metadata import ExportMetadata

elsewhere = pytest.mark.skipif(not COREML.find_obstacle(), reason='on a Mac Core ML itself runs the files')


def describe(**changes):
    values = dict(arch='A0', classes=(), num_classes=8, channels=3, input_size=(32, 32), batch_size=None)
    values |= dict(mean=(), std=(), to_rgb=False, precision='fp32', with_preprocess=False, softmax=False)
    return ExportMetadata(**(values | dict(source_sha256='', version='') | changes))


class AllOperations(nn.Module):
    """All operations that are known, each with settings that are not the usual ones."""

    def __init__(self):
        super().__init__()
        self.padded = nn.Conv2d(3, 8, 3, 2, (0, 1))
        self.grouped = nn.Conv2d(8, 8, 3, 1, 2, 2, groups=4, bias=False)
        self.fc = nn.Linear(8, 8)

    def forward(self, images):
        x = self.grouped(F.leaky_relu(self.padded(images.flip(1)), 0.3))
        x = F.hardswish(x) + F.silu(x) - F.gelu(x) * F.gelu(x, approximate='tanh')
        x = (F.relu6(4 * x) + x.clamp(-0.1, 0.2)) / (1.5 + F.hardsigmoid(x)) + F.relu(x - 0.5).sigmoid()
        return self.fc(x.mean((2, 3), keepdim=True).half().float().flatten(1)).softmax(1)


def write(path, network, metadata, example):
    COREML.write_graph(network.eval(), path, example, metadata, None)
    return path


@elsewhere
def test_all_operations_mean_what_they_do_in_core_ml(tmp_path):
    network = AllOperations()
    path = write(tmp_path / 'net.mlpackage', network, describe(), torch.zeros(2, 3, 32, 32))
    images = torch.randn(3, 3, 32, 32)
    expected = network(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(load_to_check(path)(images), expected, rtol=0, atol=1e-6)
    spec = import_coremltools().utils.load_spec(str(path))
    (block,) = spec.mlProgram.functions['main'].block_specializations.values()
    assert {op.type for op in block.operations} - {'const'} == OPERATIONS.keys()
    with pytest.raises(ExportError, match='pad_type of a convolution must be custom or valid, got same'):
        OPERATIONS['conv'](images, network.padded.weight, (1, 1), 'same', (0,) * 4, (1, 1), 1)


@elsewhere
def test_an_unknown_operation_is_named(small_cfg, small_source, tmp_path):
    small_cfg.model.neck.type = 'GeneralizedMeanPooling'
    content = torch.load(small_source)
    content['state_dict']['neck.p'] = torch.tensor([3.0])
    torch.save(content, tmp_path / 'gem.pth')
    with pytest.raises(ExportError, match=r'consists of conv, linear, .*, got avg_pool, pow; export on macOS'):
        export_model(small_cfg, tmp_path / 'gem.pth', tmp_path / 'net.mlpackage')
    assert [path.name for path in tmp_path.iterdir()] == ['gem.pth']


class AppleStandIn:
    """In the place of Apple's library below coremltools: it computes by PyTorch what coremltools hands to it."""

    maximum_supported_specification_version = staticmethod(lambda: 6)

    def __init__(self, path, units, *options):
        assert units == 'CPU_ONLY'
        if 'refused' in path:
            raise RuntimeError('the package was refused')
        self.program = Program(import_coremltools().utils.load_spec(path), Path(path))

    def predict(self, data, state=None):
        value = data['images']
        if isinstance(value, Image.Image):  # as Core ML makes it: the layout of the description, one picture
            value = np.array(value)[None].transpose(0, 3, 1, 2)[:, ::-1].astype(np.float32)
        assert value.dtype == np.float32
        return {'scores': self.program(torch.tensor(value.copy())).numpy()}

    def batchPredict(self, data):
        return [self.predict(part) for part in data]


@elsewhere
@pytest.mark.parametrize('options', [{}, dict(with_preprocess=True), dict(dynamic_batch=False, batch_size=2)])
def test_the_way_through_core_ml_up_to_apples_library(small_cfg, small_source, export_once, monkeypatch, options):
    monkeypatch.setattr('coremltools.models.model._MLModelProxy', AppleStandIn)
    path = export_once(small_cfg, '.mlpackage', **options)[1]
    images = torch.randint(256, (5, 3, 32, 32)).to(torch.uint8)
    images = images if options.get('with_preprocess') else images / 255
    expected = load_to_check(path)(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(COREML.load(path, None)(images), expected, rtol=0, atol=1e-5)


@elsewhere
def test_what_core_ml_refuses(small_cfg, export_once, tmp_path, monkeypatch):
    monkeypatch.setattr('coremltools.models.model._MLModelProxy', AppleStandIn)
    shutil.copytree(export_once(small_cfg, '.mlpackage')[1], tmp_path / 'refused.mlpackage')
    with pytest.raises(CheckpointError, match=r'Core ML can not load .*refused\.mlpackage: .*the package was refused'):
        COREML.load(tmp_path / 'refused.mlpackage', None)


class WrongWeight(CoremlFormat):
    """Writes another network than it was given: one weight of the last layer has the other sign."""

    def write_graph(self, network, path, example, metadata, opset):
        weight = dict(network.named_parameters())['model.head.fc.weight']
        row, column = divmod(weight.abs().argmax().item(), weight.shape[1])
        weight[row, column] *= -1
        super().write_graph(network, path, example, metadata, opset)


@elsewhere
def test_a_wrong_weight_in_the_package_is_found_and_the_old_package_stays(
    small_cfg, small_source, export_once, tmp_path, monkeypatch
):
    path = tmp_path / 'net.mlpackage'
    shutil.copytree(export_once(small_cfg, '.mlpackage')[1], path)
    before = {file: file.read_bytes() for file in path.rglob('*') if file.is_file()}
    monkeypatch.setattr('mmrepvgg.runtimes.export.find_format', lambda out: WrongWeight())
    with pytest.raises(ExportError, match=r'the Core ML file of .* differs from PyTorch by .*; nothing was written'):
        export_model(small_cfg, small_source, path)
    assert {file: file.read_bytes() for file in tmp_path.rglob('*') if file.is_file()} == before


class TestPackage:
    @pytest.fixture
    def path(self, small_cfg, export_once, tmp_path):
        return shutil.copytree(export_once(small_cfg, '.mlpackage')[1], tmp_path / 'net.mlpackage')

    def read_interface(self, path):
        description = import_coremltools().utils.load_spec(str(path)).description
        return ' '.join(str([*description.input, *description.output]).split())

    def test_the_weights_are_those_of_the_precision(self, small_cfg, small_source, path, tmp_path):
        weight = torch.load(small_source)['state_dict']['head.fc.weight']
        assert weight.numpy().tobytes() in (path / WEIGHTS).read_bytes()
        half = tmp_path / 'half.mlpackage'
        export = export_model(small_cfg, small_source, half, precision='fp16')
        assert weight.half().numpy().tobytes() in (half / WEIGHTS).read_bytes()
        assert 1e-5 < export.difference < 1e-2
        num_bytes = [(folder / WEIGHTS).stat().st_size for folder in (half, path)]
        assert COREML.measure_size(path) - COREML.measure_size(half) >= 0.45 * num_bytes[1]
        assert num_bytes[0] < 0.55 * num_bytes[1]

    def test_the_input_is_a_tensor_of_any_number_of_images(self, path):
        interface = self.read_interface(path)
        assert 'name: "images" type { multiArrayType { shape: 1 shape: 3 shape: 32 shape: 32 dataType: FLOAT32' in (
            interface
        )
        ranges = re.findall(r'sizeRanges { lowerBound: (\d+) upperBound: (\d+) }', interface)
        assert ranges == [('1', '1024'), ('3', '3'), ('32', '32'), ('32', '32')]
        assert 'name: "scores" type { multiArrayType { dataType: FLOAT32 } }' in interface

    def test_with_preprocessing_the_input_is_a_picture(self, small_cfg, small_source, tmp_path):
        path = tmp_path / 'net.mlpackage'
        export_model(small_cfg, small_source, path, with_preprocess=True, dynamic_size=True)
        interface = self.read_interface(path)
        assert 'imageType { width: 32 height: 32 ' in interface
        assert 'colorSpace: BGR' in interface
        assert interface.count('lowerBound: 32 upperBound: 2048') == 2
        with pytest.raises(ValueError, match='with preprocessing take one picture, .* leave out `dynamic_batch`'):
            export_model(small_cfg, small_source, path, with_preprocess=True, dynamic_batch=False)
        with pytest.raises(ExportError, match='Core ML has pictures of 1 or 3 channels, got 4; leave out'):
            write(path, nn.Identity(), describe(channels=4, with_preprocess=True), torch.zeros(2, 4, 8, 8))

    def test_what_is_in_the_folder(self, path):
        assert {str(file.relative_to(path)) for file in path.rglob('*') if file.is_file()} == {
            *('Manifest.json', MODEL, WEIGHTS)
        }
        readable = [part for part in path.rglob('*') if part.stat().st_mode & 0o044 == 0o044]
        assert len(readable) == 6, 'for others, too'
        content = b''.join(file.read_bytes() for file in path.rglob('*') if file.is_file())
        for folder in (Path(torch.__file__).parents[1], Path(__file__).parents[1], path.parent):
            assert os.fsencode(folder) not in content

    @elsewhere
    def test_damage_is_found(self, path):
        whole = {name: (path / name).read_bytes() for name in ('Manifest.json', MODEL, WEIGHTS)}
        for name, content in [
            *((part, whole[part][:size]) for part in whole for size in (0, 1, 100, len(whole[part]) - 2)),
            *((WEIGHTS, flip(whole[WEIGHTS], place)) for place in (0, 64, 5000, len(whole[WEIGHTS]) - 1)),
            *((MODEL, flip(whole[MODEL], place)) for place in (0, 1, *range(100, len(whole[MODEL]), 2000))),
            ('Manifest.json', whole['Manifest.json'].replace(b'model.mlmodel', b'../../../../../etc/passwd')),
        ]:
            (path / name).write_bytes(content)
            # a package of which only the metadata are damaged has none
            with pytest.raises(ValueError, match=r'net\.mlpackage (is damaged|holds no metadata of mmrepvgg)'):
                load_to_check(path)
            (path / name).write_bytes(whole[name])
        for name in whole:
            (path / name).unlink()
            with pytest.raises(CheckpointError, match=r'net\.mlpackage is damaged'):
                load_to_check(path)
            (path / name).write_bytes(whole[name])
        assert load_to_check(path)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)

    @elsewhere
    @pytest.mark.parametrize(
        ('changes', 'found'),
        [
            (
                dict(with_preprocess=True),
                r'from images BGR picture \(1, 3, 32, 32\) to scores FLOAT32, .*, got images',
            ),
            (
                dict(batch_size=2),
                r'from images FLOAT32 \(2, 3, 32, 32\) .*, got images FLOAT32 \(1 to 1024, 3,',
            ),
            (dict(dynamic_size=True), r'\(1 to 1024, 3, 32 to 2048, 32 to 2048\) to scores'),
        ],
    )
    def test_metadata_of_another_network(self, path, changes, found):
        seal_package(path, describe(**changes))
        with pytest.raises(CheckpointError, match=f'must be a network {found}|must be a network .*{found}'):
            load_to_check(path)

    @elsewhere
    def test_a_package_of_others(self, tmp_path):
        path = write(tmp_path / 'net.mlpackage', nn.Conv2d(3, 8, 3), describe(), torch.zeros(2, 3, 32, 32))
        spec = import_coremltools().utils.load_spec(str(path))
        spec.description.metadata.userDefined.clear()
        (path / MODEL).write_bytes(spec.SerializeToString())
        with pytest.raises(ValueError, match=r'net\.mlpackage holds no metadata of mmrepvgg'):
            load_to_check(path)


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]


class TestWhereItDoesNotRun:
    NOT_HERE = 'Core ML files can not be run here: Core ML runs on macOS only'

    @elsewhere
    def test_the_export_says_what_was_checked(self, small_cfg, small_source, tmp_path):
        small_cfg.dump(tmp_path / 'config.py')
        for _ in range(2):  # the second one replaces the first
            done = run_command('export', 'config.py', small_source, 'net.mlpackage', cwd=tmp_path)
            output = done.stdout
            assert (done.returncode, done.stderr) == (0, ''), 'no progress bars'
            assert re.search(r'largest difference from PyTorch: .*, \d\.\de-0[6-9] of the largest', output)
            assert '\nnot run here: Core ML runs on macOS only; checked: the program and the weights in the' in output
            assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'net.mlpackage']
        assert json.loads(load_to_check(tmp_path / 'net.mlpackage').metadata.arch)['num_blocks'] == [1, 1, 1, 1]

    @elsewhere
    def test_running_is_refused_in_one_line(self, small_cfg, export_once, tmp_path):
        path = export_once(small_cfg, '.mlpackage')[1]
        with pytest.raises(NoRuntimeError, match=self.NOT_HERE):
            load_exported(path)
        small_cfg.dump(tmp_path / 'config.py')
        (tmp_path / 'image.png').touch()
        assert fail_here('predict', 'config.py', path, 'image.png', cwd=tmp_path).endswith(f'error: {self.NOT_HERE}')
        done = run_tool('test', 'config.py', path, cwd=tmp_path, without=['torch'])
        assert (done.returncode, done.stdout, done.stderr) == (1, '', f'test.py: error: {self.NOT_HERE}\n')

    def test_a_file_that_was_run_has_no_such_note(self, small_cfg, export_once):
        assert export_once(small_cfg, '.ts')[0].not_run == ''

    def test_the_benchmark_does_not_offer_it(self):
        assert not [row for row in RUNTIMES.values() if row.title in (COREML.name, COREML.runtime_title)]


def test_what_is_no_package_is_told_apart(small_cfg, small_source, tmp_path):
    small_cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'photos.mlpackage').mkdir()
    (tmp_path / 'photos.mlpackage/cat.jpg').touch()
    (tmp_path / 'file.mlpackage').touch()
    for name in ('photos', 'file'):
        error = fail_here('test', 'config.py', f'{name}.mlpackage', cwd=tmp_path)
        assert f'{name}.mlpackage is not a folder with Data/com.apple.CoreML/model.mlmodel in it, as Core ML' in error
        done = run_tool('export', 'config.py', small_source, f'{name}.mlpackage', cwd=tmp_path, without=['torch'])
        assert (done.returncode, done.stdout) == (1, '')
        assert f'error: {name}.mlpackage exists and is no .mlpackage folder with {MODEL} in it; move it' in done.stderr
    assert 'none.mlpackage does not exist' in fail_here('test', 'config.py', 'none.mlpackage', cwd=tmp_path)
    assert 'is not a file' in fail_here('test', 'config.py', '.', cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.rglob('*')) == sorted(
        ['cat.jpg', 'config.py', 'file.mlpackage', 'photos.mlpackage']
    )


def test_the_missing_package_is_named(small_source, tmp_path):
    done = run_tool(
        'export', 'repvgg-a0_digits', small_source, 'net.mlpackage', cwd=tmp_path, without=['torch', 'coremltools']
    )
    assert (done.returncode, done.stderr) == (
        1,
        'export.py: error: Core ML files need coremltools, not installed here: pip install "mmrepvgg[coreml]"\n',
    )
