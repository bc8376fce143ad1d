"""Own images in three commands: `mmrepvgg new` reads a folder, a table or lists, and writes a config."""

import csv
import re
import shlex
import shutil

import pytest
import torch
from image_kinds import BROKEN
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from tool_runs import fail_here, run_command, succeed_here

from mmrepvgg import build_classifier, convert_checkpoint, load_config, new_project, reparameterize
from mmrepvgg.checkpoints.errors import CheckpointError
from mmrepvgg.data.layout import DataError
from mmrepvgg.models.forms import CheckpointFormError
from mmrepvgg.own_data import survey
from mmrepvgg.own_data.choices import choose_settings
from mmrepvgg.own_data.splitting import choose_validation


@pytest.fixture(scope='module')
def three(digit_images, tmp_path_factory):
    """A folder with 20 images of each of the digits 3, 5 and 7, in class folders."""
    root = tmp_path_factory.mktemp('three') / 'my digits'
    for digit in '357':
        (root / digit).mkdir(parents=True)
        for path in sorted((digit_images / 'train' / digit).iterdir())[:20]:
            shutil.copy(path, root / digit)
    return root


@pytest.fixture
def folder(three, tmp_path):
    """A copy of the images, which a test may change."""
    return shutil.copytree(three, tmp_path / 'my digits')


def read_labels(config, split):
    """What the config's data set holds: the name of the class of each image, by the name of its file."""
    cfg = load_config(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {info['img_path'].rsplit('/', 1)[1]: dataset.CLASSES[info['gt_label']] for info in infos}


def split_in_two(folder, classes=('3', '5', '7')):
    """Make train/ and val/ of class folders."""
    for digit in classes:
        for i, path in enumerate(sorted((folder / digit).iterdir())):
            place = folder / ('train' if i % 4 else 'val') / digit
            place.mkdir(parents=True, exist_ok=True)
            path.rename(place / path.name)
        (folder / digit).rmdir()


def test_from_a_folder_to_an_int8_file_in_three_commands(three, small_source, tmp_path):
    output = succeed_here('new', three, '--from', small_source, '--out', 'my net.py', cwd=tmp_path)
    first, title, *commands = output.splitlines()
    assert first == 'my net.py: RepVGG, 32 x 32 pixels, 48 training images and 12 validation images, 3 classes'
    assert title == 'next:'
    train, quantize = (shlex.split(command)[1:] for command in commands)
    short = ['train_cfg.max_epochs=2', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
    done = run_command(*train, '--cfg-options', *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trained = done.stdout.splitlines()[-1].removeprefix('trained: ')
    # the printed command has the checkpoint of the epochs that the config asks for
    epochs = load_config(tmp_path / 'my net.py').train_cfg.max_epochs
    assert quantize[2] == f'work_dirs/my net/epoch_{epochs}.pth'
    assert trained == str(tmp_path / 'work_dirs/my net/epoch_2.pth')
    quantize[2] = trained
    report = succeed_here(*quantize, cwd=tmp_path)
    assert 'top-1 accuracy on 12 test images: ' in report
    assert (tmp_path / 'my net_int8.onnx').is_file()
    # the digits of the old head are gone, and what it had learnt of them has stayed
    log = next((tmp_path / 'work_dirs/my net').glob('*/*.log')).read_text()
    told = 'fine-tuning: head.fc.weight is (10, 128) in the weights and (3, 128) here; the head starts anew, and all'
    assert log.count(told) == 1
    assert 'do not match exactly' not in log


def test_the_split_follows_the_pixels(three, tmp_path):
    """Not the names: with others, and an image twice, each picture is on the side where it was."""
    new_project(three, tmp_path / 'a.py')
    first = {split: read_labels(tmp_path / 'a.py', split) for split in ('train', 'val')}
    assert sorted(first['val'].values()) == ['3'] * 4 + ['5'] * 4 + ['7'] * 4
    assert not set(first['train']) & set(first['val'])
    assert len(first['train']) == 48
    other = shutil.copytree(three, tmp_path / 'other')
    for path in list(other.glob('*/*.png')):
        path.rename(path.with_name(f'{int(path.stem) * 7919 % 10007:05d}_{path.name}'))
    copied = sorted(path for path in other.glob('*/*.png') if path.name[6:] in first['val'])[0]
    Image.open(copied).save(copied.with_name('again.bmp'))
    new_project(other, tmp_path / 'b.py')
    validation = {name[6:]: label for name, label in read_labels(tmp_path / 'b.py', 'val').items()}
    assert validation.pop('bmp') == copied.parent.name
    assert validation == first['val']


def test_a_class_of_one_image_and_one_of_two():
    chosen = choose_validation(list('abbcc'), [b'1', b'2', b'3', b'4', b'4'])
    assert chosen[0] is False
    assert sorted(chosen[1:3]) == [False, True]
    assert chosen[3:] == [False, False]


def test_several_processes_see_the_same(three, monkeypatch):
    paths = sorted(map(str, three.glob('*/*')))
    alone = survey.survey_images(paths)
    monkeypatch.setattr(survey, '_IMAGES_PER_WORKER', 10)
    assert survey.survey_images(paths) == alone
    assert len({reading.digest for reading in alone}) == 60


def test_train_and_val_folders_are_read_as_they_are(folder, tmp_path):
    split_in_two(folder)
    project = new_project(folder, tmp_path / 'net.py')
    assert project.num_images == dict(train=45, val=15)
    assert not (tmp_path / 'net_lists').exists()
    assert set(read_labels(tmp_path / 'net.py', 'val')) == {path.name for path in folder.glob('val/*/*')}
    cfg = load_config(tmp_path / 'net.py')
    assert cfg.val_evaluator.topk == (1,)
    assert cfg.test_dataloader == cfg.val_dataloader


def test_validation_without_a_class_and_blanks_in_names(folder, tmp_path):
    (folder / '7').rename(folder / ' 7, or so ')
    split_in_two(folder, ('3', '5', ' 7, or so '))
    shutil.rmtree(folder / 'val/3')
    assert new_project(folder, tmp_path / 'net.py').classes == (' 7, or so ', '3', '5')
    for split in ('train', 'val'):
        expected = {path.name: path.parent.name for path in folder.glob(f'{split}/*/*')}
        assert read_labels(tmp_path / 'net.py', split) == expected
    # without folders before them, blanks begin the lines
    new_project(folder / 'train', tmp_path / 'other.py')
    assert set(read_labels(tmp_path / 'other.py', 'val').values()) == {' 7, or so ', '3', '5'}
    assert (tmp_path / 'other_lists/val.txt').read_text().startswith('./ 7, or so /')


def test_a_class_of_trains(folder, tmp_path):
    (folder / '7').rename(folder / 'train')
    assert new_project(folder, tmp_path / 'net.py').classes == ('3', '5', 'train')


def test_a_test_folder_is_tested_on(folder, tmp_path):
    split_in_two(folder)
    (folder / 'val').rename(folder / 'Testing')
    new_project(folder, tmp_path / 'net.py')
    assert set(read_labels(tmp_path / 'net.py', 'test')) == {path.name for path in folder.glob('Testing/*/*')}
    assert len(read_labels(tmp_path / 'net.py', 'val')) == 9


def test_what_is_wrong_with_images_is_told(folder, tmp_path):
    split_in_two(folder)
    first, second, third, *_ = sorted((folder / 'train/3').iterdir())
    BROKEN['half a PNG'](folder / 'train/3/damaged.png')
    Image.new('RGB', (8, 8), 'red').save(folder / 'train/5/red.png')
    clear = Image.open(first).convert('RGBA')
    clear.putpixel((0, 0), (9, 9, 9, 0))
    clear.save(folder / 'train/7/clear.png')
    Image.open(second).save(folder / 'val/3/leaked.tiff')
    shutil.copy(third, folder / 'train/7')
    (folder / 'train/7/notes.txt').touch()
    (folder / 'train/emu').mkdir()
    for name in '34':
        Image.new('L', (8, 8), int(name) * 9).save(folder / f'train/emu/{name}.png')
    done = run_command('new', folder, '--out', 'net.py', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    notes = [line.removeprefix('note: ') for line in done.stderr.splitlines()]
    assert [re.sub(r'\d{4}\.png', 'N', note) for note in notes] == [
        'files that are left out, since their names are not those of images: 1 .txt',
        'classes without val images: emu',
        f'images that can not be read, and are left out: 1 ({notes[2].split("(", 1)[1]}',
        'classes of fewer than 10 images for training: 1 (emu: 2)',
        'images in several classes, pixel by pixel: 1 (train/3/N and train/7/N)',
        'val images that are training images, too, pixel by pixel: 1 (train/3/N and val/3/leaked.tiff); the accuracy '
        'will look better than it is',
        'images of one colour: 3 (train/5/red.png, train/emu/3.png, train/emu/4.png)',
        'images that are transparent in places: 1 of 66; the config puts them on white',
    ]
    assert notes[2].split('(', 1)[1].startswith('train/3/damaged.png: ')
    # the damaged image is in no list, and the labels are right though val/ has a class less
    labels = read_labels(tmp_path / 'net.py', 'train')
    assert 'damaged.png' not in labels
    assert labels['red.png'] == '5'
    assert labels['clear.png'] == '7'
    assert read_labels(tmp_path / 'net.py', 'val')['leaked.tiff'] == '3'
    assert load_config(tmp_path / 'net.py').train_dataloader.dataset.pipeline[0].background == [255, 255, 255]


def write_table(path, rows, delimiter=','):
    with path.open('w', newline='', encoding='utf-8-sig') as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


@pytest.mark.parametrize('delimiter', [',', '\t'])
def test_a_table(folder, delimiter, tmp_path):
    paths = sorted(folder.glob('*/*.png'))
    (folder / ' 3 and blanks').mkdir()
    paths[0] = paths[0].rename(folder / ' 3 and blanks/a b, c;d.png')
    rows = [[10, path.relative_to(tmp_path), f' digit {path.parent.name[:2].strip()} '] for path in paths]
    write_table(tmp_path / 'all.csv', [['id', 'Filename', ' label'], *rows], delimiter)
    project = new_project(tmp_path / 'all.csv', tmp_path / 'net.py')
    assert project.classes == ('digit 3', 'digit 5', 'digit 7')
    labels = read_labels(tmp_path / 'net.py', 'train') | read_labels(tmp_path / 'net.py', 'val')
    assert labels == {path.name: f'digit {path.parent.name[:2].strip()}' for path in paths}


def test_a_table_with_a_split_and_numbers(folder, tmp_path):
    paths = sorted(folder.glob('*/*.png'))
    rows = [[path, int(path.parent.name) * 2, ('validation', 'train')[i % 5 > 0]] for i, path in enumerate(paths)]
    write_table(tmp_path / 'all.csv', [['path', 'class', 'split'], *rows])
    project = new_project(tmp_path / 'all.csv', tmp_path / 'net.py')
    assert project.classes == ('6', '10', '14')
    assert set(read_labels(tmp_path / 'net.py', 'val')) == {path.name for path in paths[::5]}


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([['a.png', 'cat']], r'must have the columns path and label, got .a.png,cat.; the first line names'),
        ([['path', 'label'], ['3/none.png', 'x']], r'names 1 of 1 images that are not there: 3/none.png'),
        ([['path', 'label'], ['3/0003.png', ' ']], 'line 2: the label is empty'),
        ([['path', 'label', 'split'], ['a', 'x', 'blind']], "line 2: split must be train, val or test, got 'blind'"),
        ([['path', 'label'], ['a', 'x'], ['a', 'y']], 'line 3: a stands in line 2, too'),
        ([['path', 'label']], 'has no training images'),
        ([], 'must have the columns path and label'),
    ],
)
def test_a_table_that_can_not_be_read(rows, message, folder):
    write_table(folder / 'all.csv', rows)
    with pytest.raises(DataError, match=message):
        new_project(folder / 'all.csv', folder / 'net.py')
    assert not list(folder.glob('net*'))


@pytest.mark.parametrize('named', [True, False])
def test_lists_as_of_imagenet(folder, named, tmp_path):
    (folder / 'train').mkdir()
    for digit in '357':
        (folder / digit).rename(folder / f'train/n{digit}')
    (folder / 'meta').mkdir()
    paths = sorted((folder / 'train').glob('*/*.png'))
    lines = [f'{path.parent.name}/{path.name} {["n3", "n5", "n7"].index(path.parent.name)}\n' for path in paths]
    (folder / 'meta/train.txt').write_text(''.join(lines))
    if named:
        (folder / 'meta/classes.txt').write_text('three\nfive, or so\nseven\n')
    project = new_project(folder, tmp_path / 'net.py')
    assert project.classes == (('three', 'five, or so', 'seven') if named else ('n3', 'n5', 'n7'))
    assert len(read_labels(tmp_path / 'net.py', 'train')) == 48
    (folder / 'meta/val.txt').write_text('n3/none.png 0\n')
    with pytest.raises(DataError, match=r'val.txt, line 1: .*n3/none.png does not exist, and'):
        new_project(folder, tmp_path / 'other.py')


class TestBadFolders:
    """One clear line each, and nothing is written."""

    @pytest.fixture(autouse=True)
    def _check_files(self, tmp_path):
        yield
        assert not list(tmp_path.glob('net*'))

    def refuse(self, root, message, tmp_path):
        with pytest.raises(DataError, match=message):
            new_project(root, tmp_path / 'net.py')

    def test_an_empty_one(self, tmp_path):
        (tmp_path / 'x').mkdir()
        self.refuse(tmp_path / 'x', 'has neither class folders nor images; put the images of each class', tmp_path)

    def test_images_without_class_folders(self, folder, tmp_path):
        self.refuse(folder / '3', '3 has 20 images and no class folders; put', tmp_path)

    def test_no_images(self, tmp_path):
        (tmp_path / 'x/cat').mkdir(parents=True)
        (tmp_path / 'x/cat/a.heic').touch()
        self.refuse(tmp_path / 'x', 'the class folders of .*x hold no image', tmp_path)

    def test_one_class(self, folder, tmp_path):
        self.refuse(folder.parent, 'has one class, my digits, and a classifier needs two at least', tmp_path)

    def test_unknown_classes_in_val(self, folder, tmp_path):
        split_in_two(folder)
        (folder / 'train/7').rename(folder / 'train/8')
        self.refuse(folder, 'val images of .* are of classes without training images, .*: 7; add', tmp_path)

    def test_a_class_of_damaged_images(self, folder, tmp_path):
        for path in (folder / '5').iterdir():
            path.write_bytes(b'x')
        self.refuse(folder, 'classes of .* without a training image that can be read: 5; add', tmp_path)

    def test_a_name_that_no_list_can_hold(self, folder, tmp_path):
        next((folder / '5').iterdir()).rename(folder / '5/a\nb.png')
        self.refuse(folder, r"'5/a\\\\nb.png' can not stand in a list of images", tmp_path)


def test_the_folder_does_not_exist(tmp_path):
    assert fail_here('new', 'none', cwd=tmp_path) == 'mmrepvgg new: error: none does not exist'


def test_other_files_are_no_data(small_source, tmp_path):
    line = fail_here('new', small_source, cwd=tmp_path)
    assert line.endswith(f'error: data must be a folder, or a file that ends in .csv or .tsv, got {small_source}')


@pytest.mark.parametrize('name', ['net.py', 'net_lists', 'net_start.pth'])
def test_nothing_is_replaced(name, three, tmp_path):
    (tmp_path / name).write_text('mine')
    line = fail_here('new', three, '--out', 'net.py', cwd=tmp_path)
    assert line.endswith(f'error: {name} exists; move it away, or give another name by --out')
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == 'mine'


class TestWeights:
    """--from"""

    @pytest.fixture
    def classifier(self, randomise):
        head = dict(type='LinearClsHead', num_classes=10)
        backbone = dict(type='mmrepvgg.RepVGG', arch='A0', out_indices=(3,))
        neck = dict(type='GlobalAveragePooling')
        return randomise(build_classifier(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)))

    @pytest.fixture
    def weights(self, classifier, tmp_path):
        torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'a0.pth')
        return tmp_path / 'a0.pth'

    def test_the_arch_follows_from_them(self, three, weights, tmp_path):
        assert new_project(three, tmp_path / 'net.py', weights=weights).arch == 'A0'
        cfg = load_config(tmp_path / 'net.py')
        assert cfg.load_from == str(weights)
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.01 * 8 / 64, rel=0.01)
        with pytest.raises(ValueError, match=r'`arch` must be that of .*a0.pth, A0, or be left out, got B0'):
            new_project(three, tmp_path / 'other.py', weights=weights, arch='B0')

    def test_those_of_other_systems_are_converted(self, three, weights, classifier, tmp_path):
        convert_checkpoint(weights, tmp_path / 'timm.pth', target='timm')
        new_project(three, tmp_path / 'net.py', weights=tmp_path / 'timm.pth')
        cfg = load_config(tmp_path / 'net.py')
        assert cfg.load_from == str(tmp_path / 'net_start.pth')
        found = torch.load(cfg.load_from, weights_only=True)['state_dict']
        expected = classifier.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)

    def test_the_deploy_form_is_refused(self, three, classifier, tmp_path):
        torch.save(dict(state_dict=reparameterize(classifier).state_dict()), tmp_path / 'deploy.pth')
        with pytest.raises(CheckpointFormError, match=r'deploy.pth is in deploy form, .* give the checkpoint in train'):
            new_project(three, tmp_path / 'net.py', weights=tmp_path / 'deploy.pth')
        assert not list(tmp_path.glob('net*'))

    def test_what_is_no_checkpoint(self, three, tmp_path):
        (tmp_path / 'x.pth').write_text('x')
        with pytest.raises(CheckpointError, match=r'x.pth must be a file of torch.save'):
            new_project(three, tmp_path / 'net.py', weights=tmp_path / 'x.pth')


@pytest.mark.parametrize(
    ('edge', 'num', 'fine_tunes', 'expected'),
    [
        (8, 60, False, (32, 'size', 8, 120)),
        (64, 3020, False, (64, 'size', 64, 108)),
        (375, 3020, True, (224, 'size * 8 // 7', 64, 45)),
        (90, 100_000, True, (96, 'size', 64, 10)),
        (200, 5, False, (192, 'size * 8 // 7', 5, 120)),
    ],
)
def test_choices(edge, num, fine_tunes, expected):
    choices = choose_settings([edge] * num, num, fine_tunes)
    assert (choices.size, choices.short_edge, choices.batch_size, choices.epochs) == expected
    assert choices.epochs % choices.interval == 0
