"""The config of docs/data.md for images of one's own."""

import re

import pytest
from image_kinds import WHOLE
from tool_runs import CONFIGS, ROOT, fail_here, succeed_here

CLASSES = ('cat', 'dog', 'emu')


@pytest.fixture
def folder(tmp_path):
    """The config, for a small network, and images of three classes with the suffixes that mmpretrain leaves out."""
    for split in ('train', 'val'):
        for name in CLASSES:
            (tmp_path / 'data/animals' / split / name).mkdir(parents=True)
            (tmp_path / 'data/animals' / split / name / 'a.webp').write_bytes(WHOLE['moving.webp'])
            (tmp_path / 'data/animals' / split / name / 'b.tiff').write_bytes(WHOLE['two_pages.tiff'])
        (tmp_path / 'data/animals' / split / '.ipynb_checkpoints').mkdir()
    text = (ROOT / 'docs/data.md').read_text()
    code = re.search(r"```python\n(_base_ = './repvgg-a0_8xb32.py'.*?)```", text, re.DOTALL)[1]
    changes = """
model.update(backbone=dict(arch=dict(_delete_=True, num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4)))
train_dataloader.update(batch_size=3, num_workers=0)
val_dataloader.update(num_workers=0)
train_cfg = dict(max_epochs=1)
load_from = None
"""
    (tmp_path / 'animals.py').write_text(code.replace("'./", f"'{CONFIGS}/") + changes)
    return tmp_path


def test_it_trains_and_tests(folder):
    succeed_here('train', 'animals.py', '--auto-scale-lr', '--work-dir', 'trained', cwd=folder)
    output = succeed_here('test', 'animals.py', 'trained/epoch_1.pth', '--out', 'test.json', cwd=folder)
    assert re.search(r'accuracy/top1: [\d.]+$', output)
    assert (folder / 'test.json').read_text().count('"image"') == 6


def test_the_number_of_classes_must_fit(folder):
    options = ['--work-dir', 'trained', '--cfg-options', 'experiment_name=few', 'model.head.num_classes=2']
    line = fail_here('train', 'animals.py', *options, cwd=folder)
    assert 'error: the training data has 3 classes (cat, dog, emu, ...) and the model 2: class folders are' in line
