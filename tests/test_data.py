import re
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.models.heads import MultiLabelClsHead

from mmrepvgg import CustomDataset as OwnDataset
from mmrepvgg import ImageNet
from mmrepvgg.data.classes import (
    check_classes,
    check_training_classes,
    get_trained_classes,
    require_labels,
    require_single_label,
)
from mmrepvgg.data.digits import prepare_digits
from mmrepvgg.data.layout import DataError, check_data
from mmrepvgg.data.wrappers import get_dataset, name_own_dataset


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
            r'train_dataloader: .*train does not exist; expected .*/<class>/<image>; .*set `train_dataloader\.dataset',
        ),
        (['train/1.png', 'val/a/2.png'], 'train has no class folders'),
        (['train/a/1.png'], r'val_dataloader: .*val does not exist'),
        (
            ['train/a/1.png', 'train/b/2.png', 'val/a/3.png'],
            'must have the same class folders, .* 1 are only in one of them: b',
        ),
    ],
)
def test_data_that_is_not_there_is_reported(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        check_data(loaders(tmp_path), NAMES)


def test_labels_in_lists_and_other_data_sets_are_let_pass(tmp_path):
    touch(tmp_path, 'train/1.png', 'val/2.png')
    (tmp_path / 'meta').mkdir()
    for split in ('train', 'val'):
        (tmp_path / f'meta/{split}.txt').write_text('1.png 0\n')
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


class TestFolders:
    """Class folders, in which nothing that looks like an image is left out in silence."""

    FILES = ('a/1.webp', 'a/2.TIFF', 'a/3.gif', 'a/sub/4.avif', 'b/5.png', 'b/notes.txt', 'b/._5.png', 'b/sub/.x/6.png')

    @pytest.mark.parametrize('name', ['CustomDataset', 'ImageNet', 'mmrepvgg.CustomDataset'])
    def test_what_is_an_image_and_what_is_a_class(self, tmp_path, name):
        touch(tmp_path, *self.FILES, '.ipynb_checkpoints/1-checkpoint.png', 'b/full.png/7.png')
        (tmp_path / 'b/empty.png').mkdir()
        (tmp_path / 'b/gone.jpg').symlink_to('nowhere')
        (tmp_path / 'b/up').symlink_to(tmp_path)
        (tmp_path / 'c').symlink_to(tmp_path / 'a')
        loader = dict(dataset=dict(type='RepeatDataset', times=1, dataset=dict(type=name, data_root=str(tmp_path))))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            dataset = DATASETS.build(get_dataset(dict(train_dataloader=loader), 'train')).dataset
        assert dataset.CLASSES == ('a', 'b', 'c')
        found = [(item['img_path'].removeprefix(f'{tmp_path}/'), item['gt_label']) for item in dataset.load_data_list()]
        own = ['1.webp', '2.TIFF', '3.gif', 'sub/4.avif']
        # a link up is followed once
        of_b = ['5.png', 'empty.png', 'full.png/7.png', 'gone.jpg', *(f'up/a/{path}' for path in own)]
        assert found == [
            *((f'a/{path}', 0) for path in own), *((f'b/{path}', 1) for path in of_b),
            *((f'c/{path}', 2) for path in own),
        ]  # fmt: skip

    def test_those_of_mmpretrain_are_replaced_and_others_stay(self):
        own = type('CustomDataset', (), {})
        for given, expected in [
            ('CustomDataset', 'mmrepvgg.CustomDataset'),
            ('mmpretrain.ImageNet', 'mmrepvgg.ImageNet'),
            (CustomDataset, 'mmrepvgg.CustomDataset'),
            ('mine.CustomDataset', 'mine.CustomDataset'),
            ('CUB', 'CUB'),
            (own, own),
        ]:
            assert name_own_dataset(given) == expected

    def test_given_suffixes_and_images_without_labels(self, tmp_path):
        touch(tmp_path, *self.FILES)
        dataset = OwnDataset(data_root=str(tmp_path), with_label=False)
        names = [item['img_path'].removeprefix(f'{tmp_path}/') for item in dataset.load_data_list()]
        assert names == ['a/1.webp', 'a/2.TIFF', 'a/3.gif', 'a/sub/4.avif', 'b/5.png']
        assert len(OwnDataset(data_root=str(tmp_path), extensions=['.png'])) == 1

    def test_folders_without_images(self, tmp_path):
        touch(tmp_path, 'a/1.txt', 'b/1.txt')
        with pytest.raises(DataError, match=r'the class folders of .* hold no image \(\.avif, \.bmp, '):
            OwnDataset(data_root=str(tmp_path))
        with pytest.raises(DataError, match=r'holds no image \(\.avif'):
            OwnDataset(data_root=str(tmp_path), with_label=False)
        touch(tmp_path, 'a/1.png')
        assert len(OwnDataset(data_root=str(tmp_path))) == 1
        with pytest.raises(DataError, match=r'has 2 class folders \(a, b, \.\.\.\), and the config names 1 classes'):
            OwnDataset(data_root=str(tmp_path), metainfo=dict(classes=['a']))


def test_a_config_of_imagenet_with_the_type_of_other_folders(tmp_path):
    touch(tmp_path, 'train/a/1.png', 'val/a/2.png')
    assert OwnDataset(data_root=str(tmp_path), split='train').get_data_info(0)['img_path'].endswith('train/a/1.png')
    assert OwnDataset(str(tmp_path), 'val', split='train').get_data_info(0)['img_path'].endswith('val/a/2.png')


def test_images_without_labels_where_they_are_needed(tmp_path):
    touch(tmp_path, 'a/1.png')
    labelled, others = (OwnDataset(data_root=str(tmp_path), with_label=flag) for flag in (True, False))
    require_labels(labelled, 'test')
    with pytest.raises(DataError, match=r'^the test images need labels, .* none; `Predictor` predicts images without'):
        require_labels(RepeatDataset(others, 2), 'test')
    with pytest.raises(DataError, match=r'^the train images need labels, .* that they have none$'):
        require_labels(others, 'train')


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


class TestLists:
    """Lists of images and their labels."""

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('a.png 0\nb.png\n', r"list\.txt, line 2: 'b\.png' has no label"),
            ('a.png 0\nmy cat.png\n', r"line 2: 'my cat\.png' has no label"),
            ('a.png\t0\n', r"line 1: 'a\.png\\t0' has no label"),
            ('a.png 0\n\nb.png 1\n', 'line 2: the line is empty'),
            ('\ufeffa.png 0\n', 'line 1: the file begins with a byte-order mark'),
            ('a.png 3\n', 'line 1: the label is 3, and the model has the classes 0 to 2'),
            (f'a.png {"9" * 5000}\n', 'line 1: the label is 99999999999999999999, and'),
            ('', r'list\.txt is empty; it must have "<image> <label>" in each line'),
            ('a.png -1\n', r"line 1: 'a\.png -1' has no label"),
        ],
    )
    def test_the_line_of_a_fault_is_named(self, tmp_path, text, message):
        (tmp_path / 'list.txt').write_text(text, encoding='utf-8')
        cfg = loaders(tmp_path, ann_file='list.txt') | dict(model=dict(head=dict(num_classes=3)))
        with pytest.raises(DataError, match=message):
            check_data(cfg, NAMES)

    def test_another_encoding(self, tmp_path):
        (tmp_path / 'list.txt').write_bytes('ü.png 0\n'.encode('latin-1'))
        with pytest.raises(DataError, match=r'list\.txt must be a text in UTF-8'):
            check_data(loaders(tmp_path, ann_file='list.txt'), NAMES)

    def test_good_lists(self, tmp_path):
        (tmp_path / 'list.txt').write_text('my cat.png 0\nb.png 2\r\n')
        check_data(loaders(tmp_path, ann_file='list.txt') | dict(model=dict(head=dict(num_classes=3))), NAMES)
        (tmp_path / 'names.txt').write_text('my cat.png\nb.png\n')
        check_data(loaders(tmp_path, ann_file='names.txt', with_label=False), NAMES)
        (tmp_path / 'names.txt').write_text('a.png\n\n')
        with pytest.raises(DataError, match=r'names\.txt, line 2: the line is empty; it must be "<image>"'):
            check_data(loaders(tmp_path, ann_file='names.txt', with_label=False), NAMES)


def test_images_without_labels_need_no_class_folders(tmp_path):
    touch(tmp_path, 'train/1.png', 'val/2.png')
    check_data(loaders(tmp_path, with_label=False), NAMES)
    with pytest.raises(DataError, match=r'gone/train does not exist'):
        check_data(loaders(tmp_path / 'gone', with_label=False), NAMES)


def test_names_that_the_config_gives_to_a_part_of_imagenet(tmp_path):
    touch(tmp_path, 'train/n01/1.png', 'train/n02/2.png')
    dataset = ImageNet(data_root=str(tmp_path), split='train', metainfo=dict(classes=['cat', 'dog']))
    assert dataset.CLASSES == ['cat', 'dog']


def test_a_root_that_is_a_path(tmp_path):
    touch(tmp_path, 'train/n01/1.png')
    for dataset in (OwnDataset(data_root=tmp_path / 'train'), ImageNet(data_root=tmp_path, split='train')):
        assert dataset.get_data_info(0)['img_path'] == str(tmp_path / 'train/n01/1.png')


WORDNET = [f'n{index:08d}' for index in range(1000)]


def make_folders(root, names, **kwargs):
    touch(root, *(f'{name}/1.png' for name in names))
    return CustomDataset(data_root=str(root), **kwargs)


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
    def test_another_number(self, names, trained):
        with pytest.raises(DataError, match=f'the test data has {len(names)} classes .* and the model 4'):
            check_classes(SimpleNamespace(metainfo=dict(classes=names)), 4, trained)

    @pytest.mark.parametrize(
        ('folders', 'trained', 'message'),
        [
            (
                ['cat', 'dog', '__MACOSX'],
                ['bird', 'cat', 'dog'],
                "class 0 is '__MACOSX' in the data and 'bird' in the model; only in the data: __MACOSX; only in the "
                'model: bird; class folders are numbered in the order of their names, empty ones too',
            ),
            (['a', 'b', 'c'], ['b', 'a', 'c'], "class 0 is 'a' in the data and 'b' in the model; the same names in"),
            (['1', '2', '10'], ['1', '2', '10'], "class 1 is '10' in the data and '2' in the model; the same names in"),
            (['a', 'b', 'c'], ['a', 'b'], 'only in the data: c'),
            (WORDNET, [*WORDNET[1:], 'n99999999'], 'only in the data: n00000000; only in the model: n99999999'),
        ],
    )
    def test_other_classes_in_the_same_number(self, tmp_path, folders, trained, message):
        dataset = make_folders(tmp_path, folders)
        with pytest.raises(DataError, match=re.escape(message)):
            check_classes(dataset, len(folders), trained)
        with pytest.raises(DataError, match=re.escape(message)):
            check_classes(RepeatDataset(dataset, 2), len(folders), trained)

    @pytest.mark.parametrize('trained', [IMAGENET_CATEGORIES, [name.split(',')[0] for name in IMAGENET_CATEGORIES]])
    def test_imagenet_by_its_words_and_by_its_folders(self, trained):
        for first, second in ((WORDNET, trained), (trained, WORDNET), (trained, IMAGENET_CATEGORIES)):
            check_classes(SimpleNamespace(metainfo=dict(classes=first)), 1000, second)

    def test_names_of_the_config_for_the_same_folders(self, tmp_path):
        dataset = make_folders(tmp_path, ['0', '1'], metainfo=dict(classes=['zero', 'one']))
        check_classes(dataset, 2, ['zero', 'one'])
        check_classes(dataset, 2, ['0', '1'])
        check_classes(dataset, 2, ['null', 'eins'])
        with pytest.raises(DataError, match="class 0 is 'zero' in the data and 'one' in the model"):
            check_classes(dataset, 2, ['one', 'zero'])
        with pytest.raises(DataError, match="class 0 is '0' in the data and '1' in the model"):
            check_classes(dataset, 2, ['1', '2'])

    @pytest.mark.parametrize('check', [check_classes, check_training_classes])
    def test_folders_in_the_order_of_their_numbers(self, tmp_path, check):
        dataset = make_folders(tmp_path, ['1', '2', '10'], metainfo=dict(classes=['1', '2', '10']))
        with pytest.raises(DataError, match="class 1 is '10' by its folder and '2' in the config; the same names in"):
            check(dataset, 3)

    def test_training_on_more_classes_than_the_model_has(self, tmp_path):
        dataset = make_folders(tmp_path, ['.ipynb_checkpoints', 'a', 'b'])
        message = (
            r'has 3 classes \(\.ipynb_checkpoints, a, b, \.\.\.\) and the model 2: .* set `model\.head\.num_classes=3`'
        )
        with pytest.raises(DataError, match=message):
            check_training_classes(dataset, 2)

    @pytest.mark.parametrize('meta', [dict(dataset_meta=dict(classes=['a', 1])), dict(CLASSES=('a', '1')), {}])
    def test_names_in_a_checkpoint(self, meta):
        assert get_trained_classes(meta) == (('a', '1') if meta else ())
        assert get_trained_classes(dict(dataset_meta=None)) == ()
        assert get_trained_classes(dict(dataset_meta='abc')) == ()
        assert get_trained_classes(dict(dataset_meta=dict(classes='abc'))) == ()

    @pytest.mark.parametrize('head_type', ['MultiLabelLinearClsHead', 'mmpretrain.CSRAClsHead', MultiLabelClsHead])
    def test_several_labels_an_image(self, head_type):
        with pytest.raises(ValueError, match='must give an image one label'):
            require_single_label(Config(dict(model=dict(head=dict(type=head_type)))))
        require_single_label(Config(dict(model=dict(head=dict(type='mmrepvgg.AuxiliaryClsHead')))))
