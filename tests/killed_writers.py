"""Kill writers at random moments: python killed_writers.py FOLDER NUMBER [WRITER ...]

Each writer runs in a fork of this process, which has imported everything: so the moments are those of its work. What
bears the name of a result must then be whole. FOLDER/report.json gets the counts of each writer.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401
import torch
from small_training import write_small_training
from tool_runs import run_command

from mmrepvgg.checkpoints.convert import read_translated
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.checkpoints.writing import replacing
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.openvino_core import import_openvino

IMAGES = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def save(folder):
    with replacing(folder / 'saved.pth') as temporary:
        torch.save({f'w{i}': torch.full((100_000,), float(i)) for i in range(100)}, temporary)


def command(*arguments):
    def run(folder):
        done = run_command(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr

    return run


QUANTIZE = ['quantize', 'config.py', 'good.pth', '--num-samples', '2', '--no-equalize', '--no-adaptive-rounding']

# Name of the result, how it is made, and how it is read.
WRITERS = {
    'save': ('saved.pth', save, read_checkpoint),
    'reparameterize': ('deploy.pth', command('reparameterize', 'config.py', 'good.pth', 'deploy.pth'), read_checkpoint),
    'convert': (
        'timm.safetensors',
        command('convert', 'good.pth', 'timm.safetensors', '--target', 'timm'),
        read_translated,
    ),
    **{
        f'export {suffix}': (f'net{suffix}', command('export', 'config.py', 'good.pth', f'net{suffix}'), load_exported)
        for suffix in ('.safetensors', '.ts', '.onnx', '.xml', '.pt2')
    },
    'quantize': ('int8.onnx', command(*QUANTIZE[:3], 'int8.onnx', *QUANTIZE[3:]), load_exported),
}


def fork(function):
    child = os.fork()
    if child:
        return child
    try:
        function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_whole(function, what):
    _, status = os.waitpid(fork(function), 0)
    assert status == 0, f'{what}: status {status}'


def describe(content):
    """What is in a result, for a comparison."""
    if hasattr(content, 'metadata'):
        return content(IMAGES)
    weights = getattr(content, 'state_dict', None) or content.weights
    return torch.cat([value.double().flatten() for value in weights.values()])


def kill_many(folder, name, number, generator):
    result, write, read = WRITERS[name]
    path = folder / result
    started = time.monotonic()
    run_whole(lambda: write(folder), name)
    duration = time.monotonic() - started
    run_whole(lambda: torch.save(describe(read(path)), folder / 'expected'), name)
    expected = torch.load(folder / 'expected', weights_only=True)
    earlier = {file: file.read_bytes() for file in folder.glob(f'{path.stem}.*')}

    def check():
        assert torch.equal(describe(read(path)), expected)

    counts = dict(kills=0, done=0, absent=0, left=0)
    for i in range(number):
        for file, content in earlier.items():  # every other time with an earlier result
            if i % 2:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(content)
        child = fork(lambda: write(folder))
        # half of them at the end, where files are written
        time.sleep(generator.uniform(0.7 * duration * (i // 2 % 2), 1.1 * duration))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        counts['kills' if status else 'done'] += 1
        duration *= 1.05 if status else 0.8  # the machine is not always as busy
        counts['left'] += any(each.name.startswith('.mmrepvgg-') for each in folder.iterdir())
        if path.exists():
            run_whole(check, f'{name}: the result after kill {i}')
        else:
            assert i % 2, f'{name}: kill {i} removed the earlier result'
            counts['absent'] += 1
    run_whole(lambda: write(folder), name)
    run_whole(check, name)
    assert not [each for each in folder.iterdir() if each.name.startswith('.')], f'{name}: leftovers'
    return counts


def main(folder, number, names):
    write_small_training(folder)
    # what the forks would import, each for itself; runtimes that start threads are left to them
    for name in ('reparameterize', 'export .ts'):
        WRITERS[name][1](folder)
    import_openvino()
    generator = random.Random(0)
    report = {name: kill_many(folder, name, number, generator) for name in names}
    (folder / 'report.json').write_text(json.dumps(report))


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(WRITERS))
