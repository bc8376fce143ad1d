"""Where weights are in files, under which names, and what is said about files and weights of another kind."""

from pathlib import Path

import pytest
import torch
from small_training import write_small_training
from tool_runs import fail_here, succeed_here

from mmrepvgg.checkpoints.convert import convert_checkpoint, read_translated
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.safetensors_files import write_safetensors
from mmrepvgg.checkpoints.translate import from_ours
from mmrepvgg.runtimes.loading import load_exported

FIXTURE = Path(__file__).parent / 'fixtures/mindcv_train.ckpt'
WEIGHTS = {'backbone.stem.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}
OTHERS = {key: value + 1 for key, value in WEIGHTS.items()}


def put(prefix, weights=WEIGHTS):
    return {f'{prefix}{key}': value for key, value in weights.items()}


def save(folder, content):
    torch.save(content, folder / 'x.pth')
    return folder / 'x.pth'


def equal(weights, expected):
    return weights.keys() == expected.keys() and all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.fixture(scope='module')
def ours():
    return read_translated(FIXTURE).weights


@pytest.mark.parametrize(
    'prefix',
    [
        *('', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'model.', 'model._orig_mod.'),
        *('module.model.', '_fsdp_wrapped_module.', 'model.module._orig_mod.module.'),
    ],
)
@pytest.mark.parametrize('entry', ['state_dict', 'model', 'net', 'model_state_dict', None])
def test_wrappers_and_entries(prefix, entry, tmp_path):
    content = put(prefix) if entry is None else {entry: put(prefix), 'optimizer': {'x': torch.zeros(1)}, 'epoch': 3}
    assert equal(read_checkpoint(save(tmp_path, content)).state_dict, WEIGHTS)


def test_what_all_keys_begin_with_is_kept_if_it_is_no_wrapper(tmp_path):
    path = save(tmp_path, put('backbone.'))
    assert equal(read_checkpoint(path).state_dict, put('backbone.'))


@pytest.mark.parametrize('ema', [False, True])
def test_buffers_of_mmcvs_average(ema, tmp_path):
    """mmcv's EMAHook swaps both at the end of an epoch, so that the weights in the file are the average."""
    buffers = {'ema_' + key.replace('.', '_'): value for key, value in OTHERS.items()}
    path = save(tmp_path, dict(state_dict=WEIGHTS | buffers))
    assert equal(read_checkpoint(path, ema).state_dict, WEIGHTS)


def test_several_networks(ours, tmp_path):
    others = {key: value * 2 for key, value in ours.items()}
    path = save(tmp_path, dict(state_dict=put('Student.', ours) | put('Teacher.', others)))
    message = r'several networks \(Student, Teacher\): name one, as in `convert_checkpoint` with `part=Student`'
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(path, tmp_path / 'y.pth')
    for part, weights in (('Student', ours), ('Teacher.', others)):
        assert equal(read_translated(path, part=part).weights, weights)
    with pytest.raises(CheckpointError, match=r'no entry Aunt and no keys that begin with Aunt\., got Student,'):
        convert_checkpoint(path, tmp_path / 'y.pth', part='Aunt')
    save(tmp_path, dict(student=put('module.', ours), teacher=others, optimizer=dict(x=torch.zeros(1))))
    with pytest.raises(CheckpointError, match=r'weights in several entries \(student, teacher\); .* `part=student`'):
        read_checkpoint(path)
    printed = succeed_here('convert', path, 'y.pth', '--part', 'teacher', cwd=tmp_path)
    assert equal(read_checkpoint(tmp_path / 'y.pth').state_dict, others)
    assert 'torch file, teacher\n' in printed


def test_a_prefix_that_nobody_knows(ours, tmp_path):
    path = save(tmp_path, put('our_net.', ours))
    line = fail_here('convert', path, 'y.pth', cwd=tmp_path)
    assert line.endswith('; all keys begin with our_net: mmrepvgg convert SRC DST takes it off with --part our_net')
    succeed_here('convert', path, 'y.pth', '--part', 'our_net', cwd=tmp_path)
    assert equal(read_checkpoint(tmp_path / 'y.pth').state_dict, ours)


@pytest.mark.parametrize(
    'keys',
    [
        ['module.' * 20_000 + 'weight'],
        [f'{i}.weight' for i in range(100_000)],
        ['.'.join(map(str, range(20_000)))],
        ['a' * 10_000 + '.x', 'b' * 10_000 + '.x'],
    ],
    ids=['wrapped for ever', 'many networks', 'deep', 'long'],
)
def test_keys_that_would_take_forever(keys, tmp_path):
    path = save(tmp_path, dict.fromkeys(keys, torch.ones(1)))
    with pytest.raises(CheckpointError, match='no system is known with such keys'):
        convert_checkpoint(path, tmp_path / 'y.pth')
    assert len(read_checkpoint(path).state_dict) == len(keys)


class TestTheWrongFile:
    @pytest.fixture(scope='class')
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp('wrong')
        write_small_training(folder)
        return folder

    @pytest.mark.parametrize(
        'command',
        [
            ['test', 'config.py', 'x.pth'],
            ['reparameterize', 'config.py', 'x.pth', 'y.pth'],
            ['train', 'config.py', '--cfg-options', 'load_from=x.pth'],
        ],
    )
    @pytest.mark.parametrize(('system', 'title'), [('official', 'the official RepVGG repository'), ('timm', 'timm')])
    def test_weights_of_other_systems(self, folder, ours, command, system, title):
        save(folder, from_ours(ours, system))
        line = fail_here(*command, cwd=folder)
        assert line.endswith(f'; its keys are as in {title}: mmrepvgg convert SRC DST makes a checkpoint of them')

    @pytest.mark.parametrize(
        ('keys', 'title'),
        [
            (['backbone.stem.rbr_dense.conv.weight', 'backbone.ERBlock_2.0.rbr_dense.conv.weight'], "YOLOv6's Eff"),
            (['stage0.conv.weight', 'stage1.0.conv.weight'], "RepOpt-VGG's target network"),
            (['stage1.0.scale_1x1.weight'], r"RepOpt-VGG's network for the search of its scales \(CSLA\)"),
        ],
    )
    def test_networks_that_are_not_served(self, folder, keys, title):
        path = save(folder, dict.fromkeys(keys, torch.ones(1)))
        with pytest.raises(CheckpointError, match=f'weights are of {title}'):
            convert_checkpoint(path, folder / 'y.pth')
        assert 'the weights are of ' in fail_here('test', 'config.py', path, cwd=folder)

    def test_safetensors(self, folder, ours):
        write_safetensors(ours, folder / 'x.safetensors', {})
        for command in ('test', 'predict'):
            line = fail_here(
                command, 'config.py', 'x.safetensors', *(['data'] if command == 'predict' else []), cwd=folder
            )
            assert 'x.safetensors does not fit the model of the config' in line  # so it was read
        with pytest.raises(CheckpointError, match='holds weights without their network'):
            load_exported(folder / 'x.safetensors')

    def test_torchscript(self, folder):
        torch.jit.script(torch.nn.Identity()).save(str(folder / 'x.pt'))
        line = fail_here('test', 'config.py', 'x.pt', cwd=folder)
        assert 'it is a program of TorchScript, whose file must end in .ts' in line

    def test_an_ending_in_capitals(self, folder):
        (folder / 'net.ONNX').write_bytes(b'x')
        assert 'net.ONNX is damaged' in fail_here('test', 'config.py', 'net.ONNX', cwd=folder)

    def test_names_out_of_a_file_are_printable(self, folder):
        content = torch.load(folder / 'good.pth', weights_only=True)
        content['meta']['dataset_meta']['classes'] = ('a\x1b[2J', '\u202eb')
        torch.save(content, folder / 'x.pth')
        printed = succeed_here('predict', 'config.py', 'x.pth', 'data', cwd=folder)
        assert all(line.isprintable() for line in printed.splitlines())
        assert r'a\x1b[2J' in printed
        assert r'\u202eb' in printed
