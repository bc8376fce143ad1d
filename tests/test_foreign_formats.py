"""MindSpore's and Paddle's files, as those packages wrote them (fixtures/generate.py), and hostile ones."""

import os
import pickle
import pickletools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from tool_runs import fail_here, run_tool

from mmrepvgg.checkpoints import keymaps
from mmrepvgg.checkpoints.convert import convert_checkpoint, read_translated
from mmrepvgg.checkpoints.formats import detect_format
from mmrepvgg.checkpoints.mindspore import read_mindspore
from mmrepvgg.checkpoints.paddle import read_paddle
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint

FIXTURES = Path(__file__).parent / 'fixtures'

# file, the system it must be recognised as, and its other names
FILES = {
    'mindcv_train.ckpt': 'mindcv',
    'mindcv_deploy.ckpt': 'mindcv',
    'mindspore_train.ckpt': 'mindspore',
    'mindspore_training.ckpt': 'mindcv',  # without SE both have the same keys
    'paddle_train.pdparams': 'paddleclas',
    'paddle_deploy.pdparams': 'paddleclas',
    'paddle_plain_train.pdparams': 'paddleclas',
    'paddle_protocol2_train.pdparams': 'paddleclas',
}


@pytest.mark.parametrize('name', FILES)
@torch.no_grad()
def test_same_outputs_as_the_package(name, tmp_path):
    """Strictly loaded, this project's model computes what MindSpore or Paddle computed from the same file."""
    result = convert_checkpoint(FIXTURES / name, tmp_path / 'ours.pth')
    assert result.recognition.system == FILES[name]
    deploy = 'deploy' in name
    assert result.structure.form == ('deploy' if deploy else 'train')
    head = dict(type='LinearClsHead', num_classes=5, in_channels=24)
    backbone = dict(type='mmrepvgg.RepVGG', arch=result.structure.arch, deploy=deploy)
    neck = dict(type='GlobalAveragePooling')
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)).eval()
    model.load_state_dict(read_checkpoint(tmp_path / 'ours.pth').state_dict, strict=True)
    outputs = np.load(FIXTURES / f'{name.partition("_")[0].replace("mindcv", "mindspore")}_outputs.npz')
    expected = torch.from_numpy(outputs[Path(name).stem])
    assert expected.std() > 0.1
    torch.testing.assert_close(model(torch.from_numpy(outputs['x'])), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('target', ['official', 'timm'])
def test_to_other_systems(name, target, tmp_path):
    direct = read_translated(FIXTURES / name).weights
    convert_checkpoint(FIXTURES / name, tmp_path / 'there.safetensors', target=target)
    back = read_translated(tmp_path / 'there.safetensors').weights
    assert back.keys() == direct.keys()
    assert all(torch.equal(back[key], direct[key]) for key in direct)


def test_what_is_left_out():
    result = read_translated(FIXTURES / 'mindspore_training.ckpt')
    (keys,) = result.dropped.values()
    assert {'epoch_num', 'learning_rate', 'moments.stage0.rbr_dense.0.weight'} <= set(keys)
    assert len(keys) + len(result.weights) == 111
    result = read_translated(FIXTURES / 'paddle_train.pdparams')
    assert result.dropped == {"Paddle's own parameter names": ['StructuredToParameterName@@']}


def test_readers_agree_with_the_plain_way():
    content = read_paddle(FIXTURES / 'paddle_train.pdparams')
    with (FIXTURES / 'paddle_train.pdparams').open('rb') as file:
        expected = pickle.load(file)  # our own fixture
    assert content.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(content[key].numpy(), value)
    weights = read_mindspore(FIXTURES / 'mindspore_training.ckpt')
    assert weights['epoch_num'].item() == 3
    assert weights['learning_rate'].shape == ()


@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8', 'i4', 'i8', 'u1', 'b1'])
def test_arrays_of_any_protocol(protocol, dtype, tmp_path):
    arrays = {
        'c': np.arange(24).reshape(2, 3, 4).astype(dtype),
        'fortran': np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)),
        'scalar': np.array(1, dtype),
        'empty': np.empty((0, 3), dtype),
    }
    (tmp_path / 'x.pdparams').write_bytes(pickle.dumps(arrays, protocol))
    content = read_paddle(tmp_path / 'x.pdparams')
    for key, value in arrays.items():
        assert content[key].numpy().dtype == value.dtype
        assert np.array_equal(content[key].numpy(), value)


# ------------------------------------------------------------------------------------------ hostile inputs


class _Runs:
    """Makes a file when unpickled."""

    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f'touch {self.victim}',)


def _write_malicious(path: Path, victim: Path, save) -> None:
    with path.open('wb') as file:
        save({'stage0.rbr_dense.conv.weight': _Runs(victim)}, file)


SAVERS = {
    'evil.pdparams': lambda content, file: pickle.dump(content, file, 4),
    'evil2.pdparams': lambda content, file: pickle.dump(content, file, 2),
    'evil.pth': torch.save,
    'legacy.pth': lambda content, file: torch.save(content, file, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize('name', SAVERS)
def test_nothing_in_a_file_is_run(name, tmp_path):
    source, victim, destination = tmp_path / name, tmp_path / 'victim', tmp_path / 'ours.pth'
    _write_malicious(source, victim, SAVERS[name])
    destination.write_bytes(b'precious')
    with pytest.raises(CheckpointError, match=r'was refused, and nothing in it was run: .*system'):
        convert_checkpoint(source, destination)
    assert not victim.exists()
    assert destination.read_bytes() == b'precious'
    # the file is what it claims to be: the plain way runs it
    if name.endswith('.pdparams'):
        pickle.loads(source.read_bytes())
        assert victim.exists()


@pytest.mark.parametrize(
    'reference', ['builtins.eval', 'numpy.load', 'builtins.getattr', 'numpy.frombuffer', 'torch.load']
)
def test_only_arrays_may_be_named(reference, tmp_path):
    module, _, name = reference.rpartition('.')
    (tmp_path / 'x.pdparams').write_bytes(b'\x80\x02c' + f'{module}\n{name}\n.'.encode())
    with pytest.raises(CheckpointError, match=rf'(it refers to|holds an object of) {reference}'):
        read_paddle(tmp_path / 'x.pdparams')


CRAFTED = {
    'state for a function': b'\x80\x02c_codecs\nencode\n}b.',
    'state for the array type': b'\x80\x02cnumpy\nndarray\n)R}b.',
    'state for a class': b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n}b.',
    'another codec': b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.',
    'no dict': b'\x80\x02]q\x00.',
    'array without state': b'\x80\x02}X\x01\x00\x00\x00acnumpy.core.multiarray\n_reconstruct\n)Rs.',
    'persistent id': b'\x80\x02Pabc\n.',
}


@pytest.mark.parametrize('case', CRAFTED)
def test_crafted_pickles(case, tmp_path):
    (tmp_path / 'x.pdparams').write_bytes(CRAFTED[case])
    with pytest.raises(CheckpointError, match=r'x\.pdparams'):
        read_paddle(tmp_path / 'x.pdparams')


def test_arrays_that_lie(tmp_path):
    honest = pickle.dumps({'a': np.zeros(3, 'f4')}, 2)
    (tmp_path / 'object.pdparams').write_bytes(pickle.dumps({'a': np.array([None])}, 2))
    assert read_paddle(tmp_path / 'object.pdparams')['a'].is_inert
    (tmp_path / 'big.pdparams').write_bytes(pickle.dumps({'a': np.zeros(3, '>f4')}, 2))
    with pytest.raises(CheckpointError, match=r"little-endian numbers, got a dtype with the state '>'"):
        read_paddle(tmp_path / 'big.pdparams')
    position = next(p for op, arg, p in pickletools.genops(honest) if op.name == 'BININT1' and arg == 3)
    (tmp_path / 'shape.pdparams').write_bytes(honest[: position + 1] + b'\x09' + honest[position + 2 :])
    with pytest.raises(CheckpointError, match=r'an array of shape \(9,\) must have 36 bytes, got 12'):
        read_paddle(tmp_path / 'shape.pdparams')


@pytest.mark.parametrize('name', ['mindcv_train.ckpt', 'paddle_train.pdparams', 'x.safetensors', 'x.pth'])
@pytest.mark.parametrize('share', [0.0002, 0.3, 0.999])
def test_truncated_files(name, share, tmp_path):
    source = FIXTURES / name
    if not source.exists():
        source = tmp_path / name
        convert_checkpoint(FIXTURES / 'mindcv_train.ckpt', source)
    content = source.read_bytes()
    cut = tmp_path / f'cut{source.suffix}'
    cut.write_bytes(content[: int(len(content) * share)])
    (tmp_path / 'ours.pth').write_bytes(b'precious')
    with pytest.raises(CheckpointError, match=r'cut\.'):
        convert_checkpoint(cut, tmp_path / 'ours.pth')
    assert (tmp_path / 'ours.pth').read_bytes() == b'precious'


def test_a_file_cut_between_two_tensors(tmp_path):
    """It is a valid message of fewer tensors; the network that it describes has a hole."""
    content = (FIXTURES / 'mindcv_train.ckpt').read_bytes()
    second = content.index(b'stage1.0.rbr_1x1.0.weight')
    (tmp_path / 'cut.ckpt').write_bytes(content[: content.rindex(b'\n', 0, second - 2)])
    with pytest.raises(CheckpointError, match=r'cut\.ckpt.* (damaged|incomplete)'):
        read_translated(tmp_path / 'cut.ckpt')


def test_crafted_mindspore_tensors(tmp_path):
    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    def write(dims, kind, content):
        tensor = b''.join(b'\x08' + bytes([dim]) for dim in dims) + field(2, kind) + field(3, content)
        (tmp_path / 'x.ckpt').write_bytes(field(1, field(1, b'linear.bias') + field(2, tensor)))
        return read_mindspore(tmp_path / 'x.ckpt')

    assert torch.equal(write([2], b'Float32', b'\0\0\x80?' * 2)['linear.bias'], torch.ones(2))
    with pytest.raises(CheckpointError, match=r'damaged or incomplete: linear\.bias \(3,\) of Float32 has 8 bytes'):
        write([3], b'Float32', bytes(8))
    with pytest.raises(CheckpointError, match=r'linear\.bias must be of one of the types Float16, .*, got str'):
        write([3], b'str', b'abc')


def test_a_tensor_in_parts(tmp_path):
    """As tensors above 512 MB are stored."""
    part = b'\x0a\x01a\x12\x0f\x08\x02\x12\x07Float32\x1a\x02'
    parts = [part + b'\0\0', part + b'\x80?', part + b'\0\0', part + b'\x80?']
    (tmp_path / 'x.ckpt').write_bytes(b''.join(b'\x0a' + bytes([len(value)]) + value for value in parts))
    assert torch.equal(read_mindspore(tmp_path / 'x.ckpt')['a'], torch.ones(2))


def test_unknown_format(tmp_path):
    (tmp_path / 'x.pth').write_text('<html>not found</html>')
    with pytest.raises(CheckpointError, match=r"must be a file of torch\.save, .* starts with b'<html>"):
        detect_format(tmp_path / 'x.pth')
    (tmp_path / 'lfs.pth').write_text('version https://git-lfs.github.com/spec/v1\n')
    with pytest.raises(CheckpointError, match='git lfs pull'):
        read_translated(tmp_path / 'lfs.pth')
    with pytest.raises(CheckpointError, match='is a folder'):
        read_translated(tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_translated(tmp_path / 'none.pth')


def test_missing_package(tmp_path, monkeypatch):
    source = tmp_path / 'x.safetensors'
    convert_checkpoint(FIXTURES / 'paddle_train.pdparams', source)
    for module in [module for module in sys.modules if module.startswith('safetensors')]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(ModuleNotFoundError, match='pip install safetensors'):
        read_translated(source)


# ------------------------------------------------------------------------------------------------- the tool


def test_tool(tmp_path):
    source = FIXTURES / 'paddle_train.pdparams'
    done = run_tool('convert_checkpoint', source, 'there.safetensors', '--target', 'timm', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'source: paddleclas (90 of 90 keys are as in PaddleClas' in done.stdout
    assert "'num_blocks': (1, 2, 1, 1)" in done.stdout
    assert "dropped: 1 (Paddle's own parameter names): StructuredToParameterName@@" in done.stdout
    assert len(read_translated(tmp_path / 'there.safetensors', 'timm').weights) == 90


def test_tool_reports_an_error_in_one_line(tmp_path):
    victim, destination = tmp_path / 'victim', tmp_path / 'ours.pth'
    destination.write_bytes(b'precious')
    _write_malicious(tmp_path / 'evil.pth', victim, torch.save)
    done = run_tool('convert_checkpoint', 'evil.pth', destination, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr.count('\n') == 1
    assert 'evil.pth was refused' in done.stderr
    assert destination.read_bytes() == b'precious'
    assert not victim.exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a.pth', 'b.onnx'], 'must end in .pth, .pt or .safetensors'),
        (['a.pth', 'b.pth', '--source', 'keras'], 'invalid choice'),
        (['a.pth', 'b.pth', '--target', 'mindcv'], 'invalid choice'),
    ],
)
def test_tool_usage_errors(arguments, message, tmp_path):
    done = run_tool('convert_checkpoint', *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_tool_refuses_to_overwrite_its_source(tmp_path):
    source = tmp_path / 'a.pth'
    convert_checkpoint(FIXTURES / 'paddle_train.pdparams', source)
    content = source.read_bytes()
    assert 'dst must be another file than src' in fail_here('convert', source, source, cwd=tmp_path)
    assert source.read_bytes() == content


def test_tool_knows_all_systems(tmp_path):
    done = run_tool('convert_checkpoint', '--help', cwd=tmp_path)
    assert done.returncode == 0
    choices = done.stdout.replace('\n', '').replace(' ', '')
    assert f'{{auto,{",".join(keymaps.SYSTEMS)}}}' in choices
    assert f'{{{",".join(keymaps.TARGETS)}}}' in choices
