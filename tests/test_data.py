from types import SimpleNamespace

import pytest
from mmpretrain.datasets import CustomDataset

from mmrepvgg import ImageNet
from mmrepvgg.data.digits import prepare_digits
from mmrepvgg.data.layout import DataError, check_classes, check_data


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def loaders(root, **dataset):
    return {
        f'{split}_dataloader': dict(dataset=dict(type='mmrepvgg.ImageNet', data_root=str(root), split=split, **dataset))
        for split in ('train', 'val')
    }


NAMES = ['train_dataloader', 'val_dataloader', 'test_dataloader']


def test_data_that_is_there_passes(tmp_path):
    touch(tmp_path, 'train/a/1.png', 'train/b/2.png', 'val/a/3.png', 'val/b/4.png')
    cfg = loaders(tmp_path)
    check_data(cfg, NAMES)
    check_data({'train_dataloader': dict(dataset=dict(type='RepeatDataset', **cfg['train_dataloader']))}, NAMES)
    prefixed = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix=dict(img_path='train'))
    check_data({'train_dataloader': dict(dataset=prefixed)}, NAMES)


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        (
            [],
            r'train_dataloader: .*train does not exist; expected .*/<class>/<image>; .*--cfg-options train_dataloader',
        ),
        (['train/1.png', 'val/a/2.png'], 'train has no class folders'),
        (['train/a/1.png'], r'val_dataloader: .*val does not exist'),
        (
            ['train/a/1.png', 'train/b/2.png', 'val/a/3.png'],
            'must have the same class folders, .* 1 are in one only: b',
        ),
    ],
)
def test_data_that_is_not_there_is_reported(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        check_data(loaders(tmp_path), NAMES)


def test_labels_in_lists_and_other_data_sets_are_let_pass(tmp_path):
    touch(tmp_path, 'train/1.png', 'val/2.png', 'meta/train.txt', 'meta/val.txt')
    check_data(loaders(tmp_path), NAMES)
    check_data({'train_dataloader': dict(dataset=dict(type='CIFAR10', data_root='nowhere'))}, NAMES)
    check_data(loaders('s3://bucket/imagenet'), NAMES)
    with pytest.raises(DataError, match=r'list\.txt does not exist'):
        check_data(loaders(tmp_path, ann_file='list.txt'), NAMES)
    with pytest.raises(DataError, match=r'gone/train does not exist'):
        check_data(loaders(tmp_path / 'gone'), NAMES)


def test_a_subset_of_imagenet_is_named_after_its_folders(tmp_path):
    touch(tmp_path, 'train/n01/1.png', 'train/n02/2.png')
    dataset = ImageNet(data_root=str(tmp_path), split='train')
    assert dataset.CLASSES == ('n01', 'n02')
    assert [item['gt_label'] for item in dataset.load_data_list()] == [0, 1]


def test_all_of_imagenet_has_its_names(tmp_path):
    touch(tmp_path, *(f'val/n{index:08d}/1.png' for index in range(1000)))
    dataset = ImageNet(data_root=str(tmp_path), split='val')
    assert dataset.CLASSES[0] == 'tench, Tinca tinca'
    assert len(dataset) == 1000


def test_imagenet_with_lists(tmp_path):
    touch(tmp_path, 'val/1.png')
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/val.txt').write_text('1.png 7\n')
    dataset = ImageNet(data_root=str(tmp_path), split='val')
    assert dataset.CLASSES[7] == 'cock'
    assert len(dataset.CLASSES) == 1000
    assert dataset[0]['gt_label'] == 7


def test_digits(tmp_path):
    root = tmp_path / 'data' / 'digits'
    assert prepare_digits(root) == (1437, 360)
    train, val = (CustomDataset(data_root=str(root), data_prefix=split) for split in ('train', 'val'))
    assert train.CLASSES == val.CLASSES == tuple('0123456789')
    names = [{item['img_path'].rsplit('/')[-1] for item in split.load_data_list()} for split in (train, val)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 1797
    assert not list(tmp_path.rglob('.digits*'))

    image = next((root / 'val' / '0').iterdir())
    before = image.stat().st_mtime_ns
    assert prepare_digits(root) == (1437, 360)
    assert image.stat().st_mtime_ns == before
    image.unlink()
    with pytest.raises(FileExistsError, match=r'is not the digits data \(1796 of 1797 images\)'):
        prepare_digits(root)


class TestClasses:
    @pytest.mark.parametrize(
        ('names', 'trained'),
        [
            (None, None),
            (['a', 'b', 'c', 'd'], None),
            (['a', 'b'], ['a', 'b']),
            (['a', 'b'], ['a', 'b', '2', '3']),  # as an exported file names the classes of a head that has more
        ],
    )
    def test_labels_that_are_the_models(self, names, trained):
        check_classes(SimpleNamespace(metainfo=dict(classes=names)), 4, trained)

    @pytest.mark.parametrize(
        ('names', 'trained'), [(['a', 'c'], ['a', 'b', 'c', 'd']), (['a', 'b'], None), (list('abcde'), list('abcd'))]
    )
    def test_labels_that_are_not(self, names, trained):
        with pytest.raises(DataError, match=f'the test data has {len(names)} classes .* and the model 4'):
            check_classes(SimpleNamespace(metainfo=dict(classes=names)), 4, trained)
