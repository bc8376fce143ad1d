"""Read mutated checkpoints, in a process of its own that may crash: python fuzz_checkpoints.py FOLDER [SECONDS].

Without SECONDS it is some 2,000 pickles and 300 state dicts. FOLDER/last tells which mutation was the last.
"""

import collections
import io
import pickle
import pickletools
import random
import resource
import signal
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from fuzz_keys import FIXTURES, check_message, make_state_dicts, mutate_state_dict, translate_all
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmrepvgg.checkpoints.convert import read_translated
from mmrepvgg.checkpoints.paddle import read_paddle
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.runner_files import load_from_local
from mmrepvgg.checkpoints.safe_globals import allow_runner_checkpoints
from mmrepvgg.checkpoints.safetensors_files import write_safetensors

ROUNDS = 2000
# Of so many rounds one has another state dict, and one another whole file.
SHARE = 7
# A mutation that takes longer ends the process by a signal.
MAX_SECONDS = 60
NAMES = [
    'numpy ndarray',
    'numpy dtype',
    'numpy._core.multiarray _reconstruct',
    'numpy.core.multiarray scalar',
    'mmengine.logging.history_buffer HistoryBuffer',
    'mmengine.optim.scheduler.param_scheduler OneCycleParamScheduler',
    '__builtin__ getattr',
    '__builtin__ bytes',
    '_codecs encode',
    'collections OrderedDict',
    'torch._utils _rebuild_tensor_v2',
    'torch._utils _rebuild_parameter',
    'torch FloatStorage',
    'torch ByteStorage',
    'torch Size',
]
LITERALS = [
    *(b'N', b'\x88', b')', b'}', b']', b'K\x00', b'K\xff', b'M\xff\xff', b'J\xff\xff\xff\xff', b'J\xff\xff\xff\x7f'),
    *(b'\x8a\x08' + b'\xff' * 7 + b'\x7f', b'\x8a\x09' + b'\xff' * 8 + b'\x7f', b'G' + b'\x7f\xf8' + bytes(6)),
    *(b'X' + len(text).to_bytes(4, 'little') + text for text in (b'', b'f8', b'O', b'V99', b'|', b'>', b'latin1')),
]
GENERATOR = random.Random(0)


def make_samples():
    """Pickles of everything that is allowed, and the bytes of the storages that they name."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.05)
    scheduler = OneCycleParamScheduler(optimizer, 'lr', eta_max=0.1, total_steps=9)
    arrays = {
        code: np.arange(6).reshape(2, 3).astype(code) for code in ('b1', 'i1', 'i8', 'u2', 'f2', 'f4', 'f8', 'c16')
    }
    contents = [
        dict(log_scalars=collections.OrderedDict(loss=HistoryBuffer([1.0, 2.0], [1, 1])), resumed_keys=dict(loss=True)),
        dict(
            meta=dict(best=np.float64(0.5), epoch=np.int64(3), empty=np.zeros(0), order=np.asfortranarray(arrays['f4']))
        ),
        arrays,
        scheduler.state_dict(),
        dict(milestones=collections.Counter([1, 2]), size=torch.Size([1, 2]), flag=torch.device('cpu')),
    ]
    state_dict = collections.OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.nn.Parameter(torch.ones(3)))
    buffer = io.BytesIO()
    torch.save(dict(state_dict=state_dict, model=contents[0], **contents[1]), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return [*(pickle.dumps(content, 2) for content in contents), archive.read('archive/data.pkl')]


def split(pickled):
    """A pickle cut into its opcodes."""
    positions = [position for _, _, position in pickletools.genops(pickled)]
    return [pickled[a:b] for a, b in zip(positions, [*positions[1:], len(pickled)], strict=True)]


def mutate(samples):
    parts = list(GENERATOR.choice(samples))
    for _ in range(GENERATOR.choice((1, 1, 2, 3, 8))):
        i, j = GENERATOR.randrange(1, len(parts)), GENERATOR.randrange(1, len(parts))
        kind = GENERATOR.choice((0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7))
        if kind == 0:
            # a state, a shape or an argument of another value, in a pickle that stays whole
            literals = [n for n, part in enumerate(parts) if part[:1] in b'N\x88\x89KMJGXU\x8a)}]' and part]
            parts[GENERATOR.choice(literals or [i])] = GENERATOR.choice(LITERALS)
        elif kind == 1:
            names = [n for n, part in enumerate(parts) if part[:1] == b'c'] or [i]
            parts[GENERATOR.choice(names)] = f'c{GENERATOR.choice(NAMES)}\n'.replace(' ', '\n').encode()
        elif kind == 2:
            parts[i], parts[j] = parts[j], parts[i]
        elif kind == 3:
            parts.insert(i, parts[j])
        elif kind == 4 and len(parts) > 2:
            del parts[i]
        elif kind == 5:
            donor = GENERATOR.choice(samples)
            start = GENERATOR.randrange(len(donor))
            parts[i:i] = donor[start : start + GENERATOR.randrange(1, 30)]
        elif kind == 6:
            parts.insert(i, GENERATOR.choice((b'R', b'b', b'\x81', b'\x86', b's', b'h\x01', b'0')))
        else:
            part = bytearray(parts[i])
            part[GENERATOR.randrange(len(part))] = GENERATOR.randrange(256)
            parts[i] = bytes(part)
    return b''.join(parts)


def touch(node, depth=0):
    """Look at every number that a reader gave."""
    if isinstance(node, np.ndarray | np.generic):
        node.tolist()
    elif isinstance(node, HistoryBuffer) and vars(node):
        node.mean(), node.statistics('max'), [array.tolist() for array in node.data]
    elif isinstance(node, dict) and depth < 8:
        for value in node.values():
            touch(value, depth + 1)
    elif isinstance(node, list | tuple) and depth < 8:
        for value in node:
            touch(value, depth + 1)


def read_all(folder, pickled):
    path = folder / 'x.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickled)
        archive.writestr('archive/version', b'3\n')
        for key, size in (('0', 24), ('1', 12)):
            archive.writestr(f'archive/data/{key}', bytes(size))
    paddle = folder / 'x.pdparams'
    paddle.write_bytes(pickled)
    for read in (
        lambda: read_checkpoint(path).meta,
        lambda: read_checkpoint(path, ema=True),
        lambda: load_from_local(str(path)),
        lambda: read_paddle(paddle),
    ):
        try:
            touch(read())
        except CheckpointError:
            continue
    # mmengine's way: torch may raise anything
    try:
        touch(torch.load(path, weights_only=True))
    except Exception:
        return False
    return True


def make_files(folder):
    """Whole files of every format, as bytes."""
    weights = read_translated(FIXTURES / 'mindcv_train.ckpt').weights
    content = dict(state_dict=weights, meta=dict(epoch=3, dataset_meta=dict(classes=list('abc'))))
    torch.save(content, folder / 'new.pth')
    torch.save(content, folder / 'old.pth', _use_new_zipfile_serialization=False)
    write_safetensors(weights, folder / 'x.safetensors', {})
    return [path.read_bytes() for path in (*folder.iterdir(), *FIXTURES.glob('*_train.*'))]


def damage(content):
    """Some bits flipped, a part lost, doubled or zeroed, or the end lost."""
    damaged = bytearray(content)
    start = GENERATOR.choice((0, GENERATOR.randrange(len(damaged)), max(0, len(damaged) - 600)))
    for _ in range(GENERATOR.choice((0, 1, 1, 2, 8))):
        # the headers are where the formats say what follows
        place = min(len(damaged) - 1, start + GENERATOR.randrange(600))
        damaged[place] ^= 1 << GENERATOR.randrange(8)
    kind, length = GENERATOR.randrange(6), GENERATOR.randrange(1, 100)
    if kind == 0:
        del damaged[start : start + length]
    elif kind == 1:
        damaged[start:start] = damaged[start : start + length]
    elif kind == 2:
        damaged[start : start + length] = GENERATOR.choice((b'\0', b'\xff')) * len(damaged[start : start + length])
    elif kind == 3:
        del damaged[GENERATOR.randrange(len(damaged)) :]
    return bytes(damaged)


def read_whole(folder, content):
    (folder / 'damaged').write_bytes(content)
    for read in (read_translated, read_checkpoint):
        try:
            touch(read(folder / 'damaged').meta)
        except CheckpointError as error:
            check_message(error)


def main(folder, seconds):
    warnings.simplefilter('ignore')
    allow_runner_checkpoints()
    samples = [split(sample) for sample in make_samples()]
    assert all(read_all(folder, b''.join(sample)) for sample in samples)
    state_dicts = make_state_dicts()
    (folder / 'whole').mkdir()
    files = make_files(folder / 'whole')
    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 29), resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = collections.Counter()
    end = time.monotonic() + seconds if seconds else None
    with (folder / 'last').open('w') as last:
        while time.monotonic() < end if end else counts['rounds'] < ROUNDS:
            last.seek(0)
            last.write(f'{counts["rounds"]}')
            last.flush()
            signal.alarm(MAX_SECONDS)
            counts['rounds'] += 1
            counts['read'] += read_all(folder, mutate(samples))
            if counts['rounds'] % SHARE == 0:
                counts['state dicts'] += 1
                counts['understood'] += translate_all(folder, mutate_state_dict(state_dicts, GENERATOR), GENERATOR)
                counts['files'] += 1
                read_whole(folder, damage(GENERATOR.choice(files)))
    signal.alarm(0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    # else the mutations are too wild to say anything
    assert counts['read'] > counts['rounds'] // 10, counts
    assert counts['understood'] > counts['state dicts'] // 20, counts
    print(f'{dict(counts)}, grown by {grown} MB')
    assert grown < 64, f'grew by {grown} MB'


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0)
