"""Checkpoints that try to reach memory, to run something or to take more than their size allows."""

import argparse
import collections
import datetime
import decimal
import enum
import functools
import io
import pickle
import pickletools
import resource
import subprocess
import zipfile
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from tool_runs import run_python

from mmrepvgg.checkpoints.convert import convert_checkpoint, read_translated
from mmrepvgg.checkpoints.mindspore import read_mindspore
from mmrepvgg.checkpoints.numpy_stand_ins import Inert
from mmrepvgg.checkpoints.paddle import read_paddle
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.runner_files import load_from_local
from mmrepvgg.checkpoints.safe_globals import allow_runner_checkpoints
from mmrepvgg.handoff.listing import InputList, ListedImage
from mmrepvgg.handoff.outputs import read_outputs
from mmrepvgg.runtimes.loading import load_exported

# by which numpy pickles arrays and numbers, in a module whose name changed with numpy 2
_reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(1).__reduce__()[0]

WEIGHTS = {'weight': torch.arange(6.0)}
FUZZER = Path(__file__).parent / 'fuzz_checkpoints.py'


class Reduced:
    """Is pickled as a call of a function, and a state for what it returns."""

    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def make_dtype(code='f4', state=(3, '<', None, None, None, -1, -1, 0)):
    return Reduced(np.dtype, (code, False, True), state)


def make_array(dtype, shape=(1,), data=bytes(8)):
    return Reduced(_reconstruct, (np.ndarray, (0,), b'b'), (1, shape, dtype, False, data))


def write_zip(path, pickled, members=()):
    """A file as of ``torch.save``, from its pickle."""
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in (('data.pkl', pickled), ('version', b'3\n'), ('byteorder', b'little'), *members):
            archive.writestr(f'archive/{name}', content)
    return path


# ------------------------------------------------------------------------------------------ numpy's constructors

OBJECTS = np.dtype('O')
HOSTILE_ARRAYS = {
    'objects': make_array(np.dtype('O')),
    'a subarray of objects': make_array(make_dtype('V8', (3, '|', (OBJECTS, (1,)), None, None, 8, 1, 0))),
    'a subarray of numbers': make_array(make_dtype('V8', (3, '|', (np.dtype('f4'), (1 << 20,)), None, None, 8, 1, 0))),
    'a field far away': make_array(
        make_dtype('V8', (3, '|', None, ('a',), {'a': (np.dtype('f8'), 1 << 24)}, 1 << 25, 1, 0))
    ),
    'huge items': make_array(make_dtype('V8', (3, '|', None, None, None, 1 << 30, 1, 0))),
    'an item size': make_array(make_dtype('f8', (3, '<', None, None, None, 1 << 20, 8, 0))),
    'flags': make_array(make_dtype('f8', (3, '<', None, None, None, -1, -1, 63))),
    'metadata': make_array(make_dtype('f8', (4, '<', None, None, None, -1, -1, 0, {}))),
    'the other byte order': make_array(np.dtype('>f8')),
    'text': make_array(np.dtype('U2')),
    'time': make_array(np.dtype('M8[s]')),
    'too few bytes': make_array(make_dtype('f8'), shape=(2,)),
    'too many bytes': make_array(make_dtype('f8'), shape=(0,)),
    'a negative size': make_array(make_dtype('f8'), shape=(-1, -1)),
    'a list of objects': Reduced(_reconstruct, (np.ndarray, (0,), b'b'), (1, (1,), make_dtype('f8'), False, [None])),
    'numpy itself, called': Reduced(np.ndarray, ((1 << 20,), np.dtype('f8'), bytes(8))),
    'a dtype of fields': Reduced(np.dtype, ([('a', 'O')],)),
    'a scalar that is an object': Reduced(scalar, (np.dtype('O'), bytes(8))),
    'a scalar of too few bytes': Reduced(scalar, (np.dtype('f8'), bytes(4))),
    'a history of objects': Reduced(
        HistoryBuffer, (), dict(_log_history=[None], _count_history=np.ones(1), max_length=1)
    ),
    'a history of two lengths': Reduced(
        HistoryBuffer, (), dict(_log_history=np.ones(1), _count_history=np.ones(2), max_length=1)
    ),
}
# of them, those that an array of objects, texts or times has, too, and whole classes
INERT_ARRAYS = {
    *('objects', 'a subarray of objects', 'a subarray of numbers', 'a field far away', 'huge items', 'text', 'time'),
    *('a scalar that is an object', 'a history of objects', 'a history of two lengths'),
}


@pytest.mark.parametrize('name', HOSTILE_ARRAYS)
def test_numpy_objects_that_are_no_plain_numbers(name, tmp_path):
    # what mmengine reads with
    allow_runner_checkpoints()
    path = tmp_path / 'x.pth'
    torch.save(dict(state_dict=WEIGHTS, meta=dict(score=HOSTILE_ARRAYS[name])), path)
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        torch.load(path, weights_only=True)
    # and this project: of histories, and of arrays that have no numbers, it takes nothing
    (tmp_path / 'x.pdparams').write_bytes(pickle.dumps({'a': HOSTILE_ARRAYS[name]}, 2))
    if name in INERT_ARRAYS:
        assert read_checkpoint(path).meta == {}
        content = read_paddle(tmp_path / 'x.pdparams')['a']
        assert isinstance(content, Inert) or content.is_inert
    else:
        with pytest.raises(CheckpointError, match=r'x\.pth was refused, and nothing in it was run'):
            read_checkpoint(path)
        with pytest.raises(CheckpointError, match=r'x\.pdparams was refused, and nothing in it was run'):
            read_paddle(tmp_path / 'x.pdparams')
    # what a training goes on with
    if name in INERT_ARRAYS and 'history' not in name:
        assert load_from_local(str(path))['meta'] == {}
    else:
        with pytest.raises(CheckpointError, match=r'x\.pth was refused, and nothing in it was run'):
            load_from_local(str(path))


def test_an_array_takes_its_contents_once(tmp_path):
    """A tensor may look at its memory already."""
    array = pickle.dumps(np.ones(3, 'f4'), 2)
    state = (1, (3,), np.dtype('f4'), False, bytes(12))
    twice = array[:-1] + pickle.dumps(state, 2)[2:-1] + b'b.'
    allow_runner_checkpoints()
    with pytest.raises(pickle.UnpicklingError, match='an array takes its contents once'):
        torch.load(write_zip(tmp_path / 'x.pth', twice), weights_only=True)


def find_globals(pickled):
    found = set()
    strings = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == 'GLOBAL':
            found.add(argument.replace(' ', '.'))
        elif isinstance(argument, str):
            strings.append(argument)
        elif opcode.name == 'STACK_GLOBAL':
            found.add('.'.join(strings[-2:]))
    return found


class Words(dict):
    made: ClassVar[list] = []

    def __setstate__(self, state):
        self.made.append(state)

    def __reduce__(self):
        return Words, (), {'a': 1}, None, iter(self.items())


class Listed(list):
    pass


class Settings(NamedTuple):
    number: int
    weights: list

    @classmethod
    def join(cls):
        pass


class Kind(enum.Enum):
    LAST = 1


@pytest.mark.parametrize('own', [True, False])
def test_a_resumed_history_goes_on_and_is_saved_as_mmengines_own(own, tmp_path):
    hub = MessageHub('first')
    for value in (1.0, 2.0):
        hub.update_scalar('loss', value)
    hub.update_info('best', np.float64(0.5))
    hub.update_info('confusion', np.arange(6).reshape(2, 3))
    torch.save(dict(state_dict=WEIGHTS, message_hub=hub.state_dict()), tmp_path / 'x.pth')
    if own:
        content = load_from_local(str(tmp_path / 'x.pth'))
    else:
        allow_runner_checkpoints()
        content = torch.load(tmp_path / 'x.pth', weights_only=True)
    loaded = content['message_hub']

    resumed = MessageHub('second')
    resumed.load_state_dict(loaded)
    resumed.update_scalar('loss', 6.0)
    history = resumed.get_scalar('loss')
    assert type(history) is HistoryBuffer
    assert type(loaded['log_scalars']['loss'].data[0]) is np.ndarray
    assert (history.mean(), history.statistics('max'), history.current()) == (3.0, 6.0, 6.0)
    assert resumed.get_info('best') == 0.5
    assert np.array_equal(resumed.get_info('confusion'), [[0, 1, 2], [3, 4, 5]])

    for protocol in (2, 5):
        torch.save(dict(message_hub=resumed.state_dict()), tmp_path / 'y.pth', pickle_protocol=protocol)
        with zipfile.ZipFile(tmp_path / 'y.pth') as archive:
            names = find_globals(archive.read('y/data.pkl'))
        assert any('HistoryBuffer' in name for name in names)
        assert not [name for name in names if 'mmrepvgg' in name]
    again = torch.load(tmp_path / 'y.pth', weights_only=False)['message_hub']  # our own file
    assert again['log_scalars']['loss'].data[0].tolist() == [1.0, 2.0, 6.0]
    assert type(again['runtime_info']['confusion']) is np.ndarray


def test_harmless_objects_beside_the_weights_are_left_out(tmp_path):
    counts = collections.defaultdict(list, a=[1])
    others = [datetime.datetime.now(), datetime.timedelta(1), Path('a/b'), decimal.Decimal('0.1'), counts, {1}, 1j]
    texts = [np.array(['a', 'b']), np.str_('a'), np.array([None, 1]), np.datetime64('2020-01-01')]
    own = [
        Words(a=1),
        Listed([1]),
        Settings(1, [WEIGHTS]),
        Settings,
        Settings.join,
        functools.partial(print, 'x'),
        io.BytesIO(b'x'),
    ]
    own.append(subprocess.CompletedProcess('ls', 0))
    content = dict(
        state_dict=WEIGHTS,
        args=argparse.Namespace(lr=0.1, out=Path('c')),
        meta=dict(others=others, texts=texts, own=own, epoch=3, best={frozenset((1, 2)): 1, Kind.LAST: 2, 'last': 3}),
    )
    for zipped, protocol in ((True, 2), (False, 2), (True, 5)):
        torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        checkpoint = read_checkpoint(tmp_path / 'x.pth')
        assert checkpoint.meta == dict(epoch=3, best=dict(last=3))
        assert torch.equal(checkpoint.state_dict['weight'], WEIGHTS['weight'])
        # with the lists that they were in, and without themselves
        resumed = load_from_local(str(tmp_path / 'x.pth'))
        assert resumed['meta'] == dict(others=[dict(a=[1])], texts=[], own=[], epoch=3, best=dict(last=3))
        assert resumed.keys() == {'state_dict', 'meta'}
    assert not Words.made


def test_unknown_classes_are_not_even_imported(tmp_path):
    """A class of a module that was deleted, as in old files, and of one that must not be imported."""
    (tmp_path / 'imported.py').write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for module in ('deleted_long_ago', 'imported'):
        pickled = f'}}(X\x06\0\0\0weightX\x01\0\0\0wX\x01\0\0\0oc{module}\nThing\n)R}}X\x01\0\0\0aK\x01sbu.'
        path = write_zip(tmp_path / 'x.pth', b'\x80\x02' + pickled.encode())
        with pytest.raises(CheckpointError, match=rf'no weights but objects, .* o \({module}\.Thing\)'):
            read_checkpoint(path)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (torch.nn.Linear(1, 1), r'holds an object of torch\.nn\.modules\.linear\.Linear, .* save the state_dict\(\)'),
        (
            dict(model=torch.nn.Linear(1, 1), epoch=1),
            r'objects, .*: model \(torch\.nn\.modules\.linear\.Linear\); .*state',
        ),
        (
            dict(state_dict=dict(weight=torch.zeros(2, 2).to_sparse())),
            r'weight in state_dict is made by torch\.Size|_rebuild',
        ),
        (
            dict(state_dict=dict(weight=argparse.Namespace())),
            'weight in state_dict is made by argparse.Namespace, and must',
        ),
    ],
)
def test_weights_that_are_objects(content, message, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / 'x.pth')


# ------------------------------------------------------------------------------------------------- torch's files


@pytest.mark.parametrize('zipped', [True, False])
def test_a_tensor_larger_than_its_storage(zipped, tmp_path):
    """torch makes it of memory that was freed before, for files in its old format."""
    buffer = io.BytesIO()
    torch.save({'weight': torch.arange(4.0)}, buffer, _use_new_zipfile_serialization=zipped)
    larger = (b'K\x04\x85', b'J\x00\x00\x40\x00\x85')  # (4194304,) in place of (4,)
    path = tmp_path / 'x.pth'
    if zipped:
        with zipfile.ZipFile(buffer) as archive:
            write_zip(path, archive.read('archive/data.pkl').replace(*larger), [('data/0', bytes(16))])
    else:
        path.write_bytes(buffer.getvalue().replace(*larger))
    with pytest.raises(CheckpointError, match=r'a tensor of shape \(4194304,\) is larger than what the file has'):
        read_checkpoint(path)


def test_an_old_file_without_its_storages(tmp_path):
    """torch gives memory that was freed before."""
    path = tmp_path / 'x.pth'
    torch.save({'weight': torch.arange(4.0)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b'\x80\x02]')] + b'\x80\x02].')
    with pytest.raises(CheckpointError, match='1 storages are missing'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'tensor',
    [
        torch.zeros(1).expand(1 << 28),
        torch.zeros(2, 2).to_sparse(),
        torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
    ],
)
def test_tensors_that_are_not_dense(tensor, tmp_path):
    torch.save({'weight': tensor}, tmp_path / 'x.pth')
    with pytest.raises(
        CheckpointError, match=r'x\.pth.*(was refused, .* larger than the file|torch\._utils\._rebuild_)'
    ):
        read_checkpoint(tmp_path / 'x.pth')


CALLS = {
    'memory that nothing filled': Reduced(torch.FloatTensor, (1 << 20,)),
    'many zeros': Reduced(bytearray, (1 << 34,)),
}


@pytest.mark.parametrize('name', CALLS)
def test_what_torch_would_call(name, tmp_path):
    path = write_zip(tmp_path / 'x.pth', pickle.dumps({'weight': CALLS[name]}, 2))
    with pytest.raises(CheckpointError, match=r'no weights but objects, .* weight \((torch\.Float|builtins\.byte)'):
        read_checkpoint(path)


def nest(depth, width):
    """A dict with a key that is a tuple of ``width`` times the same tuple, and so on."""
    level = {1: b'\x85', 2: b'q\x00h\x00\x86'}[width]
    return b'\x80\x02})' + level * depth + b'K\x01s.'


@pytest.mark.parametrize(('depth', 'width'), [(200_000, 1), (60, 2)])
def test_keys_that_take_forever_to_hash_or_crash_python(depth, width, tmp_path):
    path = write_zip(tmp_path / 'x.pth', nest(depth, width))
    with pytest.raises(CheckpointError, match=r'x\.pth was refused, .* got tuple'):
        read_checkpoint(path)
    (tmp_path / 'x.pdparams').write_bytes(nest(depth, width))
    with pytest.raises(CheckpointError, match=r'x\.pdparams was refused, .* got tuple'):
        read_paddle(tmp_path / 'x.pdparams')


# ---------------------------------------------------------------------------------------------------------- ZIP


def test_one_flipped_bit(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'weight': torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    position = content.index(torch.arange(1000.0).numpy().tobytes())
    content[position + 1234] ^= 8
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged or incomplete: Bad CRC-32 for file 'x/data/0'"):
        read_checkpoint(path)


def test_a_file_without_checksums(tmp_path):
    previous = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(previous)
    assert torch.equal(read_checkpoint(tmp_path / 'x.pth').state_dict['weight'], WEIGHTS['weight'])


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_two_members_of_one_name(tmp_path):
    torch.save(WEIGHTS, tmp_path / 'x.pth')
    with zipfile.ZipFile(tmp_path / 'x.pth', 'a') as archive:
        archive.writestr('x/data/0', bytes(24))
    with pytest.raises(CheckpointError, match='several members of one name'):
        read_checkpoint(tmp_path / 'x.pth')


def score_array(path):
    listing = InputList([ListedImage('x', 'x.npz', 0, 0)], num_classes=10)
    (returned,) = read_outputs([path], listing)
    raise CheckpointError(returned.reason)


@pytest.mark.parametrize(
    ('name', 'member', 'read'),
    [
        ('x.pth', 'x/data.pkl', read_checkpoint),
        ('x.pth', 'x/data.pkl', read_translated),
        ('x.pth', 'x/data.pkl', load_from_local),
        ('x.pt2', 'x/models/model.json', load_exported),
        ('x.ts', 'x/data.pkl', load_exported),
        ('x.npz', 'scores.npy', score_array),
    ],
)
def test_an_archive_that_unpacks_to_far_more_than_its_size(name, member, read, tmp_path):
    path = tmp_path / name
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, b'\x80\x02}.' + bytes(1 << 28))
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r'said to take 268,435,460 bytes, too many|no readable'):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 16  # 64 MB


# ------------------------------------------------------------------------------------------------ other formats


@pytest.mark.parametrize(
    ('start', 'unit'),
    [
        (b'', b'\n\x00'),  # values without contents
        (b'', b'\n\x02\n\x00'),  # without a tensor
        (b'', b'\x08\x00'),  # numbers
        # a tensor of many dimensions
        (b'\n\x88\x80\x80\x20\n\x01a\x12\x80\x80\x80\x20', b'\x08\x00'),
    ],
)
def test_mindspore_files_of_nothing_are_refused_at_once(start, unit, tmp_path):
    (tmp_path / 'x.ckpt').write_bytes(start + unit * ((1 << 26) // len(unit)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r'x\.ckpt is damaged or incomplete: it has a (tensor|number)'):
        read_mindspore(tmp_path / 'x.ckpt')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # 256 MB


def test_paddle_files_of_nothing_are_refused(tmp_path):
    (tmp_path / 'x.pdparams').write_bytes(b'\x80\x02' + b']' * (1 << 25))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match='more than 2,000,000 parts'):
        read_paddle(tmp_path / 'x.pdparams')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 19  # 512 MB


# --------------------------------------------------------------------------------------------------------- meta


def test_only_plain_meta_is_carried_on(tmp_path):
    layers = [torch.zeros(1)] * 2
    endless = ['x']
    for _ in range(60):
        endless = [endless, endless]
    meta = dict(
        epoch=np.int64(3),
        score=np.float64(0.5),
        mean=np.array([1.0, 2.0]),
        dataset_meta=dict(classes=('a', 'b'), layers=layers, palette=None),
        flag=True,
        large=np.zeros(100_000),
        number=1 << 4000,
        endless=endless,
        history=HistoryBuffer([1.0], [1]),
        text='x' * (1 << 23),
    )
    weights = read_translated(Path(__file__).parent / 'fixtures/mindcv_train.ckpt').weights
    torch.save(dict(state_dict=weights, meta=meta), tmp_path / 'x.pth')
    kept = dict(epoch=3, score=0.5, mean=[1.0, 2.0], dataset_meta=dict(classes=('a', 'b'), palette=None), flag=True)
    assert read_checkpoint(tmp_path / 'x.pth').meta == kept
    assert type(read_checkpoint(tmp_path / 'x.pth').meta['epoch']) is int
    convert_checkpoint(tmp_path / 'x.pth', tmp_path / 'y.pth')
    written = torch.load(tmp_path / 'y.pth', weights_only=True)['meta']
    assert {key: value for key, value in written.items() if key != 'mmrepvgg'} == kept
    assert read_checkpoint(tmp_path / 'y.pth').meta == written


# --------------------------------------------------------------------------------------------------------- fuzz


def fuzz(folder, *arguments):
    done = run_python(FUZZER, folder, *arguments, timeout=1200)
    last = (folder / 'last').read_text() if (folder / 'last').exists() else 'none'
    assert done.returncode == 0, f'mutation {last}: {done.stderr[-2000:]}'
    print(done.stdout)


def test_mutated_files_end_in_success_or_in_the_readers_error(tmp_path):
    fuzz(tmp_path)


@pytest.mark.deep
def test_ten_minutes_of_mutated_files(tmp_path):
    fuzz(tmp_path, 600)
