"""Trainings on data with missing and damaged images."""

import re
import shutil

import pytest
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.datasets import CustomDataset
from tool_runs import ROOT, SMALL, fail_here, run_command, run_python, succeed_here
from torch.utils.data import DataLoader

from mmrepvgg import SkipDamaged
from mmrepvgg.data.damaged import SKIPPED
from mmrepvgg.data.images import UnreadableImageError

PIPELINE = [dict(type='mmrepvgg.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]
FEW = ['train_dataloader.batch_size=10', 'val_dataloader.batch_size=10', 'train_cfg.max_epochs=2']


@pytest.fixture
def data(digit_images, tmp_path):
    """data/digits with four training images of each digit; an empty one of digit 0 and a text of digit 7."""
    for split, number in (('train', 4), ('val', 1)):
        for digit in range(10):
            folder = tmp_path / f'data/digits/{split}/{digit}'
            folder.mkdir(parents=True)
            for source in sorted((digit_images / split / str(digit)).iterdir())[:number]:
                shutil.copy(source, folder)
    train = tmp_path / 'data/digits/train'
    damaged = [sorted((train / digit).iterdir())[1] for digit in ('0', '7')]
    damaged[0].write_bytes(b'')
    damaged[1].write_text('<html>not found</html>')
    return train, [path.relative_to(tmp_path) for path in damaged]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_another_image_takes_the_place_and_says_so(data, num_workers):
    train, damaged = data
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            dict(type='mmrepvgg.SkipDamaged', dataset=dict(type='CustomDataset', data_root=train, pipeline=PIPELINE))
        )
    assert isinstance(dataset, SkipDamaged)
    assert len(dataset.metainfo['classes']) == 10
    skipped, seen = [], []
    for batch in DataLoader(dataset, 8, num_workers=num_workers, collate_fn=pseudo_collate):
        assert len(batch['inputs']) == 8
        for sample in batch['data_samples']:
            seen.append(sample.img_path)
            skipped += sample.get(SKIPPED, ())
    assert len(seen) == 40
    assert len(set(seen)) in (37, 38)  # the other two may have been drawn twice
    assert sorted({line.split(': ')[0] for line in skipped}) == [str(train.parents[2] / path) for path in damaged]
    assert all(line.endswith('the file is empty, or no image of a known format') for line in skipped)


def test_data_without_a_whole_image_are_an_error(tmp_path):
    for name in 'ab':
        (tmp_path / 'train/x').mkdir(parents=True, exist_ok=True)
        (tmp_path / f'train/x/{name}.png').touch()
    dataset = SkipDamaged(CustomDataset(data_root=str(tmp_path / 'train'), pipeline=PIPELINE))
    with pytest.raises(UnreadableImageError, match=r'^100 images, .* most of the data .* last one is .*/[ab]\.png: '):
        dataset[0]


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_training_stops_and_names_the_image(data, tmp_path, num_workers):
    options = [*FEW, f'train_dataloader.num_workers={num_workers}', f'experiment_name=stop{num_workers}']
    line = fail_here('train', SMALL, '--work-dir', 'stopped', '--cfg-options', *options, cwd=tmp_path)
    assert re.search(
        rf'error: ({"|".join(map(str, data[1]))}) can not be read: the file is empty, or no image of a known format; '
        'repair or remove it. mmrepvgg train CONFIG goes on without such images with --skip-damaged$',
        line,
    )


def test_a_training_goes_on_and_logs_the_images(data, tmp_path):
    options = ['--skip-damaged', '--cfg-options', *FEW, 'experiment_name=skip']
    succeed_here('train', SMALL, '--work-dir', 'skipped', *options, cwd=tmp_path)
    log = next((tmp_path / 'skipped').glob('*/*.log')).read_text()
    told = re.findall(r'WARNING - (2 damaged images were left out .*)', log)
    assert len(told) == 2  # epochs
    assert all(str(path) in line for line in told for path in data[1])
    for path in data[1]:
        (tmp_path / path).unlink()
    resumed = ['--resume', '--skip-damaged', '--cfg-options', *FEW, 'train_cfg.max_epochs=3', 'experiment_name=whole']
    succeed_here('train', SMALL, '--work-dir', 'whole', *resumed, cwd=tmp_path)
    log = next((tmp_path / 'whole').glob('*/*.log')).read_text()
    assert re.findall(r'no damaged image in epoch (\d)', log) == ['1', '2', '3']


def test_validation_leaves_nothing_out(data, tmp_path):
    [image] = (tmp_path / 'data/digits/val/3').iterdir()
    image.write_bytes(b'')
    options = ['--skip-damaged', '--cfg-options', *FEW, 'train_cfg.max_epochs=1', 'experiment_name=validation']
    line = fail_here('train', SMALL, '--work-dir', 'validation', *options, cwd=tmp_path)
    assert f'error: {image.relative_to(tmp_path)} can not be read: the file is empty' in line


def test_two_processes_count_together(data, tmp_path):
    done = run_python(
        '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--rdzv-backend', 'c10d',
        '--rdzv-endpoint', 'localhost:0', ROOT / 'tools/train.py', SMALL, '--launcher', 'pytorch', '--skip-damaged',
        '--work-dir', 'two', '--cfg-options', *FEW, 'train_cfg.max_epochs=1', cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r'2 damaged images were left out .*train/0/.*train/7/', done.stderr)
    assert done.stderr.count('report: two/report.html\n') == 1


def test_all_are_found_before_a_training(data, tmp_path):
    [half] = (tmp_path / 'data/digits/val/3').iterdir()
    half.write_bytes(half.read_bytes()[:60])
    done = run_command('check-images', SMALL, '--workers', '2', cwd=tmp_path)
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == [
        f'{data[1][0]}: the file is empty, or no image of a known format',
        f'{data[1][1]}: the file is empty, or no image of a known format',
        f'{half.relative_to(tmp_path)}: OSError: image file is truncated',
    ]
    assert done.stderr.splitlines()[-1] == (
        'mmrepvgg check-images: error: 3 of 50 images can not be read; repair or remove them, or let mmrepvgg train '
        'CONFIG go on without them with --skip-damaged'
    )
    for path in (*data[1], half):
        (tmp_path / path).unlink()
    assert succeed_here('check-images', SMALL, cwd=tmp_path) == 'all 47 images can be read\n'
