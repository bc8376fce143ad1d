"""No tool runs what a checkpoint says, whichever way the file gets in; some versions of mmengine would."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from tiny_runner import TINY_BACKBONE
from tool_runs import ROOT, run_python

CONFIG = f"""
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(**{TINY_BACKBONE!r}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=16, loss=dict(type='CrossEntropyLoss')),
)
data_preprocessor = dict(num_classes=2)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='data',
        data_prefix='',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
test_dataloader = train_dataloader
test_evaluator = dict(type='Accuracy', topk=1)
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
"""


class Payload:
    """Unpickled, it makes a file named RAN."""

    def __reduce__(self):
        return exec, ("open('RAN', 'w').close()",)


PRETRAINED = ['model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=x.pth']
HEAD = ['model.head.init_cfg.type=Pretrained', 'model.head.init_cfg.checkpoint=x.pth']

COMMANDS = {
    'test': ['test', 'config.py', 'x.pth'],
    'reparameterize': ['reparameterize_model', 'config.py', 'x.pth', 'y.pth'],
    'compare': ['compare_forms', 'config.py', 'x.pth', 'x.pth'],
    'load_from': ['train', 'config.py', '--cfg-options', 'load_from=x.pth'],
    'resume': ['train', 'config.py', '--resume', 'x.pth'],
    'init_cfg': ['train', 'config.py', '--cfg-options', *PRETRAINED],
    "head's init_cfg": ['train', 'config.py', '--cfg-options', *HEAD],
}

# The tools one after the other in one process: importing torch and mmpretrain for each takes longer than they do.
DRIVER = """
import contextlib, io, json, os, runpy, sys
results = {}
for name, (tool, *arguments) in json.loads(sys.argv[1]).items():
    os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)
    sys.argv = [tool, *arguments]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as exit:
            status = exit.code
    results[name] = [status, (errors.getvalue().splitlines() or [''])[-1], os.path.exists('RAN')]
with open('results.json', 'w') as file:
    json.dump(results, file)
"""


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Of each command: its exit status, the last line on stderr, and whether the payload had run by its end."""
    folder = tmp_path_factory.mktemp('unsafe')
    for label in ('a', 'b'):
        (folder / 'data' / label).mkdir(parents=True)
        cv2.imwrite(str(folder / 'data' / label / '0.png'), np.full((32, 32, 3), 100, np.uint8))
    (folder / 'config.py').write_text(CONFIG)
    weights = {'backbone.stem.branch_3x3.conv.weight': torch.zeros(1)}
    torch.save(dict(state_dict=weights, payload=Payload()), folder / 'x.pth')
    commands = {name: [str(ROOT / f'tools/{tool}.py'), *rest] for name, (tool, *rest) in COMMANDS.items()}
    done = run_python('-c', DRIVER, json.dumps(commands), cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / 'results.json').read_text())


def test_the_payload_works(tmp_path, monkeypatch):
    """Otherwise the tests below would pass for nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Payload()))
    assert (tmp_path / 'RAN').exists()


@pytest.mark.parametrize('name', COMMANDS)
def test_a_crafted_checkpoint_is_refused_and_not_run(results, name):
    status, error, ran = results[name]
    assert not ran
    assert status == 1
    assert 'error: x.pth was refused, and nothing in it was run: it refers to builtins.exec, by which' in error
