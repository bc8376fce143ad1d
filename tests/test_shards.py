"""Images in tar shards: written, taken up again, read by webdataset and by mmengine's Runner."""

import io
import json
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from mmengine import fileio
from mmengine.registry import DATASETS, DefaultScope
from tool_runs import ROOT, SMALL, fail_here, run_python, succeed_here

from mmrepvgg import ShardedImages, load_config, write_shards
from mmrepvgg.data.classes import check_classes
from mmrepvgg.data.layout import DataError, check_data
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.data.shard_index import INDEX, ShardError, read_index
from mmrepvgg.data.shard_scanning import scan_shard

TRAIN, SECOND = 'data/shards/train', 'train-000001.tar'
SHARDED = ROOT / 'tests/configs/digits_shards.py'
# a few steps
FEW = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=130', 'val_dataloader.dataset.indices=60']

# Writes shards, and is killed while it writes the third one.
KILLED = """
import os, signal, sys
from mmrepvgg import load_config, write_shards
from webdataset import TarWriter
write, written = TarWriter.write, []
def write_and_die(self, sample):
    written.append(sample['__key__'])
    if len(written) == 800:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, sample)
TarWriter.write = write_and_die
cfg = load_config(sys.argv[1])
write_shards(cfg, 'shards', ['train'], shard_size=1_000_000)
"""


@pytest.fixture(scope='module')
def workspace(digit_images, tmp_path_factory):
    """A folder with data/digits and their shards, data/shards."""
    folder = tmp_path_factory.mktemp('shards')
    (folder / 'data').mkdir()
    (folder / 'data/digits').symlink_to(digit_images)
    output = succeed_here('shard', SMALL, 'data/shards', '--shard-size', '1', cwd=folder)
    assert output == (
        'data/shards/train: 1437 images in 5 shards, 4.4 MB\ndata/shards/val: 360 images in 2 shards, 1.1 MB\n'
    )
    return folder


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


@pytest.fixture
def copy(workspace, tmp_path, monkeypatch):
    """A folder like ``workspace``, with shards to be changed."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/digits').symlink_to(workspace / 'data/digits')
    shutil.copytree(workspace / 'data/shards', tmp_path / 'data/shards')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(loader):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(loader.dataset)


def shard_names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestReading:
    @pytest.mark.parametrize('split', ['train', 'val'])
    def test_webdataset_reads_the_files_as_they_were(self, inside, split):
        shards = sorted(map(str, Path('data/shards', split).glob('*.tar')))
        samples = list(webdataset.WebDataset(shards, shardshuffle=False))
        found = {json.loads(sample['json'])['path']: sample for sample in samples}
        files = sorted(path.relative_to(f'data/digits/{split}') for path in Path('data/digits', split).rglob('*.png'))
        assert sorted(found) == [str(path) for path in files]
        for path in files:
            assert found[str(path)]['png'] == Path('data/digits', split, path).read_bytes()
            assert found[str(path)]['cls'].decode() == path.parts[0]
        keys = [sample['__key__'] for sample in samples]
        assert keys == [f'{number:08d}' for number in range(len(files))]

    def test_the_data_set_is_that_of_the_folder(self, inside):
        folder, shards = (build(load_config(config).val_dataloader) for config in (SMALL, SHARDED))
        assert isinstance(shards, ShardedImages)
        assert shards.metainfo['classes'] == folder.metainfo['classes'] == tuple('0123456789')
        assert shards.folder_to_idx == folder.folder_to_idx
        assert len(shards) == len(folder) == 360
        for a, b in zip(folder, shards, strict=True):
            assert torch.equal(a['inputs'], b['inputs'])
            assert a['data_samples'].gt_label == b['data_samples'].gt_label
            assert b['data_samples'].img_path.endswith(a['data_samples'].img_path.removeprefix('data/digits/val'))
        check_classes(shards, 10, tuple('0123456789'))
        with pytest.raises(DataError, match=r'other classes than .* class 0 is .0. in the data and .nought. in the'):
            check_classes(shards, 10, ('nought', *'123456789'))

    def test_training_images_are_shuffled_in_the_shards(self, inside):
        index = read_index('data/shards/train')
        assert set(index.shards[0].labels[:100]) == set(range(10))
        assert len(index) == 1437

    def test_what_calibrates_and_analyses_gets_the_same_images(self, inside):
        (folder, _), (shards, _) = (
            next(iterate_samples(load_config(config), 'test', 40, seed=1, batch_size=40)) for config in (SMALL, SHARDED)
        )
        assert torch.equal(folder, shards)
        ((images, labels),) = iterate_samples(load_config(SHARDED), 'train', 40, batch_size=40)
        assert images.shape == (40, 3, 32, 32)
        assert len(set(labels.tolist())) > 5

    def test_a_path_with_anything_in_it(self, tmp_path):
        path = tmp_path / 'data' / 'a#1+2' / 'ü c' / os.fsdecode(b'x\xff.y.PNG')
        path.parent.mkdir(parents=True)
        path.write_bytes(b'content')
        cfg = load_config(SMALL)
        cfg.train_dataloader.dataset.update(data_root=str(tmp_path / 'data'), data_prefix='')
        write_shards(cfg, tmp_path / 'sh#3+4 ü', ['train'])
        dataset = ShardedImages(str(tmp_path / 'sh#3+4 ü'), 'train')
        assert dataset.metainfo['classes'] == ('a#1+2',)
        assert fileio.get(dataset.get_data_info(0)['img_path']) == b'content'
        assert dataset.get_data_info(0)['img_path'].endswith(os.fsdecode(b'/x\xff.y.PNG'))

    def test_an_address_that_leads_nowhere(self, inside):
        with pytest.raises(ValueError, match=r'shard://x\.tar is no address of an image in a shard'):
            fileio.get('shard://x.tar')
        with pytest.raises(OSError, match=r'val-000000\.tar ends within the image'):
            fileio.get('shard://data/shards/val/val-000000.tar#1003500+500/a.png')


class TestRuns:
    def test_train_and_test_in_one_process(self, workspace, tmp_path):
        (tmp_path / 'data').symlink_to(workspace / 'data')
        options = ['--work-dir', 'run', '--cfg-options', *FEW, 'experiment_name=sharded']
        succeed_here('train', SHARDED, *options, 'default_hooks.checkpoint.interval=1', cwd=tmp_path)
        both = [
            succeed_here('test', config, 'run/epoch_1.pth', '--metrics', 'accuracy', '--out', out, cwd=tmp_path)
            for config, out in ((SMALL, 'folder.json'), (SHARDED, 'shards.json'))
        ]
        accuracies = [output.splitlines()[-1] for output in both]
        assert accuracies[0] == accuracies[1]
        folder, shards = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('folder', 'shards'))
        assert [item['score'] for item in folder['predictions']] == [item['score'] for item in shards['predictions']]

    def test_two_ranks_with_two_workers_each_get_every_image_once_an_epoch(self, inside, tmp_path):
        done = run_python(
            '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--rdzv-backend', 'c10d', '--rdzv-endpoint',
            'localhost:0', ROOT / 'tests/sharded_run.py', SHARDED, inside / 'data/shards', tmp_path, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        ranks = [json.loads((tmp_path / f'rank{rank}.json').read_text()) for rank in range(2)]
        dataset = ShardedImages(str(inside / 'data/shards'), 'train')
        wanted = {dataset.get_data_info(number)['img_path'] for number in range(0, 303, 3)}
        orders = set()
        for epochs in zip(*ranks, strict=True):
            assert [len(images) for images in epochs] == [51, 51]
            counts = Counter(image for images in epochs for image in images)
            assert counts.keys() == wanted
            # 102 places for 101 images
            assert sorted(counts.values()) == [1] * 100 + [2]
            orders.add(tuple(map(tuple, epochs)))
        assert len(orders) == 2, 'each epoch has an order of its own'
        tested = [item['image'] for item in json.loads((tmp_path / 'tested.json').read_text())['predictions']]
        assert len(tested) == len(set(tested)) == 101


class TestWriting:
    def test_a_killed_run_is_taken_up(self, workspace, tmp_path):
        (tmp_path / 'data').symlink_to(workspace / 'data')
        done = run_python('-c', KILLED, SMALL, cwd=tmp_path)
        assert done.returncode == -9
        folder = tmp_path / 'shards/train'
        half, *whole = shard_names(folder)
        assert half.endswith('train-000002.tar')
        assert whole == ['train-000000.tar', 'train-000001.tar']
        times = [(folder / name).stat().st_mtime_ns for name in whole]
        output = succeed_here('shard', SMALL, 'shards', '--splits', 'train', '--shard-size', '1', cwd=tmp_path)
        assert output == 'shards/train: 1437 images in 5 shards (2 were there already), 4.4 MB\n'
        assert [(folder / name).stat().st_mtime_ns for name in whole] == times
        assert shard_names(folder) == shard_names(workspace / 'data/shards/train')
        for name in shard_names(folder):
            assert (folder / name).read_bytes() == (workspace / 'data/shards/train' / name).read_bytes()

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (lambda folder: ['--shard-size', '2'], 'train holds other shards (train-000003.tar, ...); remove them or'),
            (lambda folder: (folder / TRAIN / 'mine.tar').touch(), 'train holds other shards (mine.tar, '),
            (lambda folder: swap(folder / TRAIN), 'train-000000.tar holds other images'),
            (lambda folder: cut(folder / TRAIN / SECOND), 'it is damaged or not the one of'),
            (lambda folder: cut(folder / TRAIN / SECOND, with_index=False), 'is no shard of mmrepvgg shard '),
            (lambda folder: flip(folder / TRAIN / SECOND), 'train-000001.tar is damaged: its hash'),
        ],
        ids=['size', 'foreign', 'swapped', 'cut', 'cut without index', 'one bit'],
    )  # fmt: skip
    def test_other_shards_are_not_touched(self, copy, change, message):
        options = change(copy) or ['--shard-size', '1']
        before = {path: path.read_bytes() for path in copy.rglob('*.*') if path.is_file()}
        line = fail_here('shard', SMALL, 'data/shards', *options, cwd=copy)
        assert message in line
        assert {path: path.read_bytes() for path in copy.rglob('*.*') if path.is_file()} == before

    def test_images_that_can_not_be_written(self, digit_images, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        shutil.copytree(digit_images / 'val/0', 'data/digits/val/0')
        shutil.copytree(digit_images / 'val/1', 'data/digits/val/1')
        names = sorted(Path('data/digits/val/0').iterdir())
        names[0].write_bytes(b'')
        Path('list.txt').write_text(f'{names[0]} 0\n{names[1]} 0\nno.png 1\n')
        cfg = load_config(SMALL, ['val_dataloader.dataset.data_prefix=.', 'val_dataloader.dataset.data_root=.'])
        cfg.val_dataloader.dataset.ann_file = 'list.txt'
        with pytest.raises(
            DataError, match=r'^2 of the 3 images .*0078\.png \(the file is empty\), .*no\.png \(No such'
        ):
            write_shards(cfg, 'shards', ['val'])
        assert not Path('shards').exists()

        Path('list.txt').write_text(f'{names[2]} 0\n')
        os.truncate(names[2], 15 * 2**40)  # sparse
        with pytest.raises(DataError, match=r'the shards take 16492\.7 GB, and shards/val has .* GB free'):
            write_shards(cfg, 'shards', ['val'])
        with pytest.raises(ValueError, match='`shard_size` must be at least 1, got 0'):
            write_shards(cfg, 'shards', ['val'], shard_size=0)


def swap(folder):
    first, second = (folder / 'train-000000.tar').read_bytes(), (folder / SECOND).read_bytes()
    (folder / 'train-000000.tar').write_bytes(second)
    (folder / SECOND).write_bytes(first)
    drop(folder)


def cut(path, with_index=True):
    os.truncate(path, 500_000)
    if not with_index:
        drop(path.parent)


def drop(folder):
    (folder / INDEX).unlink()


def flip(path):
    content = bytearray(path.read_bytes())
    place = content.index(b'IDAT')
    content[place] ^= 1
    path.write_bytes(content)


class TestChecks:
    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            (drop, r'train_dataloader: data/shards/train/index\.json does not exist; it is written by `write_shards`'),
            (lambda folder: (folder / SECOND).unlink(), r'train-000001\.tar is missing, and index\.json lists it'),
            (lambda folder: cut(folder / SECOND), r'has 500000 bytes and must have 1003520: it is damaged'),
            (lambda folder: (folder / INDEX).write_text('{"format": "x"}'), r"is not the index .* got 'x'"),
            (lambda folder: (folder / INDEX).write_text('[]'), r'index\.json is not the index of shards'),
            (lambda folder: edit(folder, name='../x.tar'), r"'\.\./x\.tar' is no name of a shard"),
            (lambda folder: edit(folder, offsets=[1003520]), r'a lies outside train-000000\.tar'),
            (lambda folder: edit(folder, offsets=[-1]), r'a lies outside train-000000\.tar'),
            (lambda folder: edit(folder, size=2**60, sizes=[2**40]), r'a lies outside'),
            (lambda folder: edit(folder, labels=[10]), r'a has the label 10, and there are 10 classes'),
            (lambda folder: edit(folder, labels=[True]), r'train-000000\.tar must have a path, a label, an offset'),
            (lambda folder: edit(folder, labels=[]), r'train-000000\.tar must have a path, a label, an offset'),
            (lambda folder: edit(folder, more=1), r'is not the index of shards .* unexpected keyword argument'),
        ],
    )  # fmt: skip
    def test_one_line_before_the_training(self, copy, change, message):
        check_data(load_config(SHARDED), ['train_dataloader', 'val_dataloader'])
        change(copy / 'data/shards/train')
        with pytest.raises(DataError, match=message):
            check_data(load_config(SHARDED), ['train_dataloader', 'val_dataloader'])

    def test_other_classes_than_those_of_the_validation_data(self, copy):
        index = json.loads((copy / 'data/shards/val' / INDEX).read_text())
        index['folders'][3] = 'three'
        (copy / 'data/shards/val' / INDEX).write_text(json.dumps(index))
        with pytest.raises(DataError, match='must have the same class folders, .* 2 are only in one of them: 3, three'):
            check_data(load_config(SHARDED), ['train_dataloader', 'val_dataloader'])


def edit(folder, **values):
    index = json.loads((folder / INDEX).read_text())
    one = dict(paths=['a'], labels=[0], offsets=[0], sizes=[1])
    index['shards'][0].update(one | values)
    (folder / INDEX).write_text(json.dumps(index))


def write_tar(path, *members):
    """A tar file of members: a name and bytes, or the settings of a header."""
    with tarfile.open(path, 'w') as tar:
        for member in members:
            name, content = member if isinstance(member, tuple) else (member.name, b'')
            info = tarfile.TarInfo(name) if isinstance(member, tuple) else member
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content)) if isinstance(member, tuple) else tar.addfile(info)


def header(name, **values):
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


class TestHostileShards:
    @pytest.mark.parametrize(
        ('members', 'message'),
        [
            ([('a.cls', b'1'), ('a.json', b'{}'), ('a.png', b'x')], r"\('path'\)"),
            ([('a.cls', b'x'), ('a.json', b'{"path": "x"}'), ('a.png', b'x')], 'invalid literal for int'),
            ([('a.cls', b'1'), ('a.json', b'{' * 70000), ('a.png', b'x')], r'a\.json has 70000 bytes'),
            ([('a.cls', b'1'), ('b.json', b'{}'), ('a.png', b'x')], r'a\.cls has not the three members of an image'),
            ([('a.cls', b'1'), ('a.png', b'x')], r'a\.cls has not the three members'),
            ([('a.cls', b'1'), ('a.json', b'{}'), header('a.png', type=tarfile.SYMTYPE, linkname='/x')], 'not files'),
            ([('a.cls', b'1'), ('a.json', b'{}'), header('a.png', type=tarfile.LNKTYPE, linkname='a')], 'not files'),
            ([('a.cls', b'1'), ('a.json', b'{}'), ('a.png', b'')], r'a\.png has 0 bytes'),
            ([('a.cls', b'1'), ('a.json', b'{"path": "x"}'), header('a.png', size=2**29)], 'unexpected end of data'),
            ([('a.cls', b'1'), ('a.json', b'{"path": "x"}'), header('a.png', size=2**50)], '1125899906842624 bytes'),
        ],
    )  # fmt: skip
    def test_are_refused(self, tmp_path, members, message):
        write_tar(tmp_path / 'x.tar', *members)
        with pytest.raises(ShardError, match=f'x.tar is no shard of `write_shards`, or is damaged .*{message}'):
            scan_shard(tmp_path / 'x.tar')
        assert shard_names(tmp_path) == ['x.tar']

    def test_names_that_lead_out_of_the_folder_make_no_file(self, tmp_path):
        key = '../../evil/00000000'
        path = '../../../evil/x.png'
        members = [
            (f'{key}.cls', b'1'),
            (f'{key}.json', json.dumps(dict(path=path)).encode()),
            (f'{key}.png', b'content'),
        ]
        write_tar(tmp_path / 'x.tar', *members)
        (image,) = scan_shard(tmp_path / 'x.tar').images
        assert (image.path, image.label, image.size) == (path, 1, 7)
        assert fileio.get(f'shard://{tmp_path}/x.tar#{image.offset}+{image.size}/{path}') == b'content'
        assert shard_names(tmp_path) == ['x.tar']
        assert not list(tmp_path.parents[1].glob('evil'))

    @pytest.mark.parametrize('content', [b'', b'no tar' * 1000, np.random.default_rng(0).bytes(5000)])
    def test_files_that_are_no_tar(self, tmp_path, content):
        (tmp_path / 'x.tar').write_bytes(content)
        with pytest.raises(ShardError, match=r'x\.tar is no shard of `write_shards`, or is damaged'):
            scan_shard(tmp_path / 'x.tar')
