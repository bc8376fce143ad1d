"""What does not fit into memory ends in one line that says which option to lower."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_kinds import WHOLE
from network_files import write_network_files
from tool_runs import run_python

from mmrepvgg import load_config
from mmrepvgg.commands import convert, predict, train
from mmrepvgg.commands.errors import describe

_LARGE = [f'{split}_dataloader.dataset.pipeline.1.scale=1500' for split in ('train', 'val', 'test')]
_CROP = ['train_dataloader.dataset.pipeline.2.crop_size=1500', 'train_dataloader.batch_size=10']

COMMANDS = {
    'test': (['test', 'config.py', 'model.pth', '--cfg-options', *_LARGE], 'test_dataloader.batch_size=N'),
    'predict': (['predict', 'config.py', 'model.pth', 'data/digits/val', '--cfg-options', *_LARGE], '--batch-size'),
    'train': (
        ['train', 'config.py', '--cfg-options', *_LARGE, *_CROP],
        'train_dataloader.batch_size=N or --cfg-options val_dataloader.batch_size=N',
    ),
    'quantize': (
        ['quantize', 'config.py', 'model.pth', 'int8.onnx', '--cfg-options', *_LARGE],
        '--num-samples or --eval-samples',
    ),
    'export-inputs': (
        ['export-inputs', 'config.py', 'inputs', '--batch-size', '10', '--cfg-options', *_LARGE],
        '--batch-size',
    ),
}

# Each command has 300 MB above what the process takes already.
_SCRIPT = """
import json, re, resource, sys
import torch, onnxruntime
from pathlib import Path
from tool_runs import run_command
import mmrepvgg.quantization.quantize, mmrepvgg.engine.training, mmrepvgg.engine.testing, mmrepvgg.handoff.preprocessed
for args in json.loads(sys.argv[1]):
    size = int(re.search(r'VmSize:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + 300_000_000, resource.RLIM_INFINITY))
    done = run_command(*args, cwd=Path.cwd())
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(json.dumps([done.returncode, done.stderr]))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='the limit is that of Linux')
def test_a_batch_that_does_not_fit(randomise, tmp_path):
    cfg = load_config('repvgg-a0_digits')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    write_network_files(tmp_path, cfg, randomise)
    for split in ('train', 'val'):
        for digit in range(10):
            (tmp_path / f'data/digits/{split}/{digit}').mkdir(parents=True)
            (tmp_path / f'data/digits/{split}/{digit}/a.png').write_bytes(WHOLE['grey.png'])
    before = set(tmp_path.iterdir())
    done = run_python(
        '-W', 'ignore', '-c', _SCRIPT, json.dumps([args for args, _ in COMMANDS.values()]),
        cwd=tmp_path, PYTHONPATH=':'.join(str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parent)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [line for line in done.stdout.splitlines() if line.startswith('[')]  # forks of OpenMMLab say more
    for (name, (_, settings)), line in zip(COMMANDS.items(), answers, strict=True):
        status, stderr = json.loads(line)
        assert status == 1
        *log, error = stderr.splitlines()
        assert error.startswith(f'mmrepvgg {name}: error: there is not enough memory for 0.')
        assert error.endswith((f' GB more; lower {settings}', f'--cfg-options {settings}'))
        assert name == 'train' or not log
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {'work_dirs'}


@pytest.mark.parametrize(
    ('error', 'amount'),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 540000000 bytes."), '0.54 GB'),
        (torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...'), '2.00 GiB'),
        (RuntimeError('Failed to allocate memory for requested buffer of size 1440000000'), '1.44 GB'),
        (RuntimeError("[CPU] Check 'ptr' failed at x.cpp:2: Failed to allocate 1440000000 bytes of memory"), '1.44 GB'),
        (RuntimeError('Exception from x.cpp:224: std::bad_alloc'), ''),
        (MemoryError(), ''),
        (OSError(12, 'Cannot allocate memory'), ''),
        (RuntimeError('DataLoader worker (pid 9) is killed by signal: Killed. '), ''),
    ],
)  # fmt: skip
def test_the_words_of_all_libraries(error, amount):
    amount = f' for {amount} more' if amount else ''
    assert describe(error, predict.add_arguments, predict.MEMORY) == (
        f'there is not enough memory{amount}; lower --batch-size'
    )
    assert describe(error, convert.add_arguments).endswith('give smaller images or a smaller model, or take a machine '
                                                           'with more')  # fmt: skip


def test_numpys_own():
    with pytest.raises(MemoryError, match='Unable to allocate') as error:
        np.empty(2**60, np.uint8)
    assert describe(error.value, train.add_arguments, train.MEMORY).startswith(
        'there is not enough memory for 1.00 EiB more; lower --cfg-options train_dataloader.batch_size=N or '
    )


def test_other_errors_stay():
    assert describe(ValueError('the memory of elephants'), predict.add_arguments, predict.MEMORY) == (
        'the memory of elephants'
    )
