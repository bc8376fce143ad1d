"""Every command that reads checkpoints, against every kind of hostile, broken and unfit file."""

import json
import pickle
import random
from pathlib import Path

import pytest
from hostile_files import ATTACKS, BROKEN, GADGETS, KINDS, UNFIT, Gadget, write_kinds
from small_training import write_small_training
from tool_runs import run_python

RUNS = Path(__file__).parent / 'hostile_runs.py'
# Each command, with X for the file.
READERS = {
    'test': ['test', 'config.py', 'X'],
    'predict': ['predict', 'config.py', 'X', 'data', '--out', 'out.json'],
    'reparameterize': ['reparameterize', 'config.py', 'X', 'out.pth'],
    'convert': ['convert', 'X', 'out.pth'],
    'export': ['export', 'config.py', 'X', 'out.ts'],
    'quantize': ['quantize', 'config.py', 'X', 'out.onnx'],
    'analyze': ['analyze', 'config.py', 'X', '--out', 'out.json'],
    'compare': ['compare', 'config.py', 'X', 'good.pth'],
    'compare with': ['compare', 'config.py', 'good.pth', 'X'],
    'resume': ['train', 'config.py', '--work-dir', 'work', '--resume', 'X'],
    'load_from': ['train', 'config.py', '--work-dir', 'work', '--cfg-options', 'load_from=X'],
    'init_cfg': [
        *('train', 'config.py', '--work-dir', 'work', '--cfg-options'),
        *('model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=X'),
    ],
    "head's init_cfg": [
        *('train', 'config.py', '--work-dir', 'work', '--cfg-options'),
        *('model.head.init_cfg.type=Pretrained', 'model.head.init_cfg.checkpoint=X'),
    ],
}
# A training takes weights of other classes, and mends what is not finite; a conversion takes any numbers.
STARTS = ('resume', 'load_from', 'init_cfg', "head's init_cfg")
TAKES = {
    'convert': {'whole numbers', 'NaN', 'infinite', 'three classes'},
    **{reader: set(UNFIT) for reader in STARTS},
}
# More than what the commands import on their first use, and far less than the bomb.
MAX_GROWTH = 500
STEP = 5
CUTS, FLIPS = 200, 500


def list_runs(every: int):
    """Pairs of a kind and a reader: all, or each kind with some readers and each reader with some kinds."""
    return [
        (kind, reader)
        for i, kind in enumerate(KINDS)
        for j, reader in enumerate(READERS)
        if (i + j) % every == 0 and kind not in TAKES.get(reader, ())
    ]


def run_all(folder, pairs):
    write_small_training(folder)
    files = dict(zip(KINDS, write_kinds(folder), strict=True))
    return run_plan(folder, files, pairs)


def run_plan(folder, files, pairs):
    plan = [
        (f'{reader}: {kind}', [part.replace('X', files[kind]) for part in READERS[reader]]) for kind, reader in pairs
    ]
    (folder / 'plan.json').write_text(json.dumps(plan))
    done = run_python(RUNS, folder, timeout=3600)
    last = (folder / 'last').read_text() if (folder / 'last').exists() else 'none'
    assert done.returncode == 0, f'{last}: {done.stderr[-2000:]}'
    return json.loads((folder / 'results.json').read_text())


def find_faults(results):
    faults = []
    for name, result in results.items():
        lines = result['stderr'].strip().splitlines()
        errors = [line for line in lines if ': error: ' in line]
        good = (
            result['status'] == 1
            and not result['ran']
            and not result['changed']
            and len(errors) == 1
            and lines[-1] == errors[0]
            and errors[0].isprintable()
            and '.pth' in errors[0]
            and len(errors[0]) < 1500
            and result['grown'] < MAX_GROWTH
        )
        if not good:
            faults.append(f'{name}: {result | dict(stderr=lines[-1:])}')
    return faults


@pytest.mark.parametrize('name', GADGETS)
def test_the_gadgets_work(name, tmp_path, monkeypatch):
    """Otherwise the tests below would pass for nothing."""
    monkeypatch.chdir(tmp_path)
    made = pickle.loads(pickle.dumps(Gadget(name)))
    if name == 'popen':
        made.wait()
    elif name == 'open':
        made.close()
    assert (tmp_path / 'RAN').exists()


def test_hostile_files_run_nothing_and_end_in_one_line(tmp_path):
    pairs = list_runs(STEP)
    assert {kind for kind, _ in pairs} == set(KINDS)
    assert {reader for _, reader in pairs} == set(READERS)
    faults = find_faults(run_all(tmp_path, pairs))
    assert not faults, '\n'.join(faults)


@pytest.mark.deep
def test_all_hostile_files_through_all_readers(tmp_path):
    results = run_all(tmp_path, list_runs(1))
    print(f'{len(results)} runs: {len(ATTACKS)} attacks, {len(BROKEN)} broken and {len(UNFIT)} unfit files')
    assert find_faults(results) == []


@pytest.mark.deep
def test_cut_and_flipped_files_through_the_readers(tmp_path):
    """A flip in the dates of a ZIP archive changes nothing: the command may do its work."""
    write_small_training(tmp_path)
    whole = (tmp_path / 'good.pth').read_bytes()
    files = {}
    for number in range(CUTS):
        files[f'cut {number}'] = whole[: len(whole) * number // CUTS]
    for number, place in enumerate(random.Random(0).choices(range(len(whole)), k=FLIPS)):
        files[f'flip {number}'] = whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :]
    for name, content in files.items():
        (tmp_path / f'{name.replace(" ", "_")}.pth').write_bytes(content)
    names = {name: f'{name.replace(" ", "_")}.pth' for name in files}
    # a training that starts from a whole file takes long
    readers = [reader for reader in READERS if reader not in STARTS]
    results = run_plan(tmp_path, names, [(name, readers[i % len(readers)]) for i, name in enumerate(names)])
    done = {name for name, result in results.items() if result['status'] == 0 and 'flip' in name and not result['ran']}
    print(f'{len(results)} runs, of which {len(done)} took a file that a flip had left as it was')
    assert len(done) < FLIPS // 5
    assert not (faults := find_faults({name: results[name] for name in results.keys() - done})), '\n'.join(faults)
