"""Every command that reads images, on images of all kinds and on what is in the place of one.

A run of each command on all whole kinds, and of each on one broken kind; ``make test-deep`` has all pairs of them.
"""

import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from image_kinds import BROKEN, PHOTO, WHOLE
from network_files import write_network_files
from PIL import Image
from tool_runs import run_command

from mmrepvgg import LoadImageFromFile, ResizeEdge, load_config
from mmrepvgg.data.images import UnreadableImageError
from mmrepvgg.data.samples import Samples
from mmrepvgg.data.transparency import warn_of_transparency

DIGITS = [str(digit) for digit in range(10)]
_ONE_EPOCH = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=7',
              'train_dataloader.drop_last=False', 'train_dataloader.num_workers=0',
              'val_dataloader.num_workers=0']  # fmt: skip

# Each command that reads the images of a config, and the results that it writes.
STOPPING = {
    'test': (['test', 'config.py', 'model.pth', '--out', 'test.json'], ['test.json']),
    'test of a file': (['test', 'config.py', 'model.onnx'], []),
    'train': (['train', 'config.py', '--work-dir', 'trained', *_ONE_EPOCH], ['trained/epoch_1.pth']),
    'compare': (['compare', 'config.py', 'model.pth', 'deploy.pth'], []),
    'reparameterize': (
        ['reparameterize', 'config.py', 'model.pth', 'new.pth', '--data', 'data/digits/val'], ['new.pth']
    ),
    'quantize': (['quantize', 'config.py', 'model.pth', 'int8.onnx', '--num-samples', '99'], ['int8.onnx']),
    'analyze': (['analyze', 'config.py', 'model.pth', '--out', 'int8.json'], ['int8.json']),
    'export-inputs': (['export-inputs', 'config.py', 'inputs'], ['inputs']),
}  # fmt: skip
_RESULTS = [name for _, results in STOPPING.values() for name in results] + ['trained', 'shards', 'shown', 'out.json']


@pytest.fixture(scope='module')
def folder(randomise, tmp_path_factory):
    """A small network's files, and data/digits with one image of each digit in train/ and in val/."""
    folder = tmp_path_factory.mktemp('kinds')
    write_network_files(folder, load_config('repvgg-a0_digits'), randomise, DIGITS)
    made = run_command('reparameterize', 'config.py', 'model.pth', 'deploy.pth', cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def data(folder):
    shutil.rmtree(folder / 'data', ignore_errors=True)
    for name in _RESULTS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    for split in ('train', 'val'):
        for digit in DIGITS:
            (folder / f'data/digits/{split}' / digit).mkdir(parents=True)
            (folder / f'data/digits/{split}' / digit / 'a.png').write_bytes(WHOLE['grey.png'])
    return folder / 'data/digits'


def put_whole(data: Path) -> None:
    for split in ('train', 'val'):
        for number, (name, content) in enumerate(WHOLE.items()):
            (data / split / DIGITS[number % 10] / name).write_bytes(content)


def check_whole(folder, args, results):
    done = run_command(*args, cwd=folder)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if args[0] != 'train' or ' - mmengine - INFO - ' not in line]
    for line in said:
        assert re.match(r'mmrepvgg [\w-]+: warning: \d+ of \d+ images .* transparent in places', line)
    assert all((folder / name).exists() for name in results)
    return done


@pytest.mark.filterwarnings('always:.* transparent in places')
class TestWhole:
    @pytest.mark.parametrize('name', ['test', 'train', 'export-inputs'])
    def test_every_command_reads_all_kinds(self, folder, data, name):
        put_whole(data)
        check_whole(folder, *STOPPING[name])
        if name == 'export-inputs':
            assert len(list((folder / 'inputs/inputs').iterdir())) == 10 + len(WHOLE)

    @pytest.mark.deep
    @pytest.mark.parametrize('name', STOPPING.keys() - {'test', 'train', 'export-inputs'})
    def test_every_other_command_reads_all_kinds(self, folder, data, name):
        put_whole(data)
        check_whole(folder, *STOPPING[name])

    def test_all_are_found_predicted_and_drawn(self, folder, data):
        put_whole(data)
        num_images = 10 + len(WHOLE)
        args = ['predict', 'config.py', 'model.pth', 'data/digits/val', '--show-dir', 'shown']
        lines = check_whole(folder, args, []).stdout.splitlines()
        assert len(lines) == num_images + 1
        assert lines[-1] == f'shown: {num_images} annotated pictures'
        # a name is one line, whatever is in it
        assert any(line.startswith(r'data/digits/val/6/two\nlines.png: ') for line in lines)

    def test_checked_and_put_into_shards(self, folder, data):
        put_whole(data)
        num_images = 10 + len(WHOLE)
        done = check_whole(folder, ['check-images', 'config.py', '--workers', '1'], [])
        assert done.stdout == f'all {2 * num_images} images can be read\n'
        done = check_whole(folder, ['shard', 'config.py', 'shards'], ['shards/val/index.json'])
        assert f'shards/val: {num_images} images in 1 shards' in done.stdout


def check_stops(folder, data, name, kind):
    """A command ends with one line that names what can't be read, and writes nothing."""
    args, results = STOPPING[name]
    paths = [data / split / '3/bad.png' for split in ('train', 'val')]
    for path in paths:
        BROKEN[kind](path)
    for file in results:
        if not file.startswith('trained') and file != 'inputs':
            (folder / file).write_text('mine')
    before = sorted(folder.rglob('*'))
    done = run_command(*args, cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    *log, line = done.stderr.splitlines()
    assert re.fullmatch(rf'mmrepvgg {args[0]}: error: data/digits/(train|val)/3/bad\.png can not be read: .+', line)
    assert not log or args[0] == 'train'
    written = set(folder.rglob('*')) - set(before)
    logs = ('.log', '.py', '.json', '.lock')
    assert not [path for path in written if path.suffix not in logs and path.is_file()]
    assert all((folder / file).read_text() == 'mine' for file in results if (folder / file).exists())


PAIRS = [(name, kind) for name in STOPPING for kind in BROKEN]
# each command and each kind at least once
FEW = [(name, list(BROKEN)[number % len(BROKEN)]) for number, name in enumerate(STOPPING)]


class TestBroken:
    @pytest.mark.parametrize(('name', 'kind'), FEW)
    def test_a_command_names_it(self, folder, data, name, kind):
        check_stops(folder, data, name, kind)

    @pytest.mark.deep
    @pytest.mark.parametrize(('name', 'kind'), [pair for pair in PAIRS if pair not in FEW])
    def test_every_command_names_every_kind(self, folder, data, name, kind):
        check_stops(folder, data, name, kind)

    def test_what_goes_on_without_them_tells_all(self, folder, data):
        for number, make in enumerate(BROKEN.values()):
            for split in ('train', 'val'):
                make(data / split / f'3/{number}.png')
        names = {f'{split}/3/{number}.png' for split in ('train', 'val') for number in range(len(BROKEN))}
        done = run_command('check-images', 'config.py', '--workers', '1', cwd=folder)
        assert done.returncode == 1
        assert {line.split(': ')[0].removeprefix('data/digits/') for line in done.stdout.splitlines()} == names

        done = run_command('predict', 'config.py', 'model.pth', 'data/digits/val', '--show-dir', 'shown', cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == 'shown: 10 annotated pictures'
        told = {line.split(': ')[0].strip() for line in done.stderr.splitlines()[1:]}
        assert told == {f'data/digits/{name}' for name in names if name.startswith('val')}
        # the system's errors come without their number and without the name once more
        assert '  data/digits/val/3/4.png: No such file or directory\n' in done.stderr

        done = run_command('train', 'config.py', '--work-dir', 'trained', '--skip-damaged', *_ONE_EPOCH, cwd=folder)
        assert f'{len(BROKEN)} damaged images were left out' in done.stderr
        assert re.search(r'error: data/digits/val/3/\d+\.png can not be read', done.stderr)

        done = run_command('shard', 'config.py', 'shards', cwd=folder)
        assert re.search(r'error: 4 of the 21 images of the train data .*\(the file is empty\), .*\(it is no file\)',
                         done.stderr)  # fmt: skip
        assert not (folder / 'shards').exists()

    def test_one_that_predict_alone_is_given(self, folder, data):
        BROKEN['half a PNG'](data / 'bad.png')
        done = run_command('predict', 'config.py', 'model.pth', 'data/digits/bad.png', '--out', 'out.json', cwd=folder)
        assert done.returncode == 1
        assert 'data/digits/bad.png: OSError: image file is truncated' in done.stderr
        assert done.stderr.endswith('error: none of the 1 images could be read\n')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every file')
def test_a_file_that_the_user_must_not_read(tmp_path):
    (tmp_path / 'x.png').write_bytes(WHOLE['grey.png'])
    (tmp_path / 'x.png').chmod(0)
    with pytest.raises(UnreadableImageError, match=r'x\.png can not be read: Permission denied; repair'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'x.png')))


def reset_peak() -> int:
    """Forget the peak of this process's memory, and return what it takes now, in MB."""
    Path('/proc/self/clear_refs').write_text('5')
    return read_peak()


def read_peak() -> int:
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) // 1024


class TestLimits:
    @pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='Linux tells the peak of memory')
    @pytest.mark.parametrize('kind', [kind for kind in BROKEN if kind.startswith('bomb')])
    def test_a_bomb_takes_no_memory(self, kind, tmp_path):
        BROKEN[kind](tmp_path / 'x.png')
        before = reset_peak()
        with pytest.raises(UnreadableImageError, match=r'it has \d{5} x \d{5} pixels, and `max_pixels` of the step'):
            LoadImageFromFile()(dict(img_path=str(tmp_path / 'x.png')))
        assert read_peak() - before < 50

    def test_an_option_of_the_command_line(self, folder, data):
        (data / 'x.jpg').write_bytes(WHOLE['colour.jpg'])
        args = ['predict', 'config.py', 'model.pth', 'data/digits/x.jpg', '--cfg-options']
        setting = 'test_dataloader.dataset.pipeline.0.max_pixels'
        assert run_command(*args, f'{setting}=1200', cwd=folder).returncode == 0
        done = run_command(*args, f'{setting}=1199', cwd=folder)
        assert '  data/digits/x.jpg: it has 40 x 30 pixels, and `max_pixels` of the step' in done.stderr

    @pytest.mark.parametrize('name', ['colour.jpg', 'colour.tga'])  # of OpenCV, and of Pillow
    def test_the_limit_is_not_pillows(self, name, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
        (tmp_path / name).write_bytes(WHOLE[name])
        path = dict(img_path=str(tmp_path / name))
        assert LoadImageFromFile(max_pixels=1200)(path)['img'].shape == (30, 40, 3)
        with pytest.raises(UnreadableImageError, match='it has 40 x 30 pixels, .* allows 1,199;'):
            LoadImageFromFile(max_pixels=1199)(path)
        assert Image.MAX_IMAGE_PIXELS == 100

    def test_a_line_of_pixels_is_not_resized_to_gigabytes(self, tmp_path):
        Image.new('L', (20_000, 1)).save(tmp_path / 'x.png')
        image = LoadImageFromFile()(dict(img_path=str(tmp_path / 'x.png')))
        with pytest.raises(
            UnreadableImageError,
            match=r'x\.png can not be read: it has 20000 x 1 pixels, and resized as the pipeline asks it would have '
            '5120000 x 256;',
        ):
            ResizeEdge(256, edge='short')(image)

    @pytest.mark.parametrize(('value', 'shown'), [(0.5, 'from 0.5 to 0.5'), (300, 'from 300 to 300'), (-1, 'from -1')])
    def test_values_of_an_unknown_scale(self, tmp_path, value, shown):
        Image.fromarray(np.full((4, 4), value, np.float32)).save(tmp_path / 'x.tiff')
        with pytest.raises(UnreadableImageError, match=f'its values go {shown}.*, and must go from 0 to 255'):
            LoadImageFromFile()(dict(img_path=str(tmp_path / 'x.tiff')))

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(max_pixels=0), '`max_pixels` must be at least 1, got 0'),
            (dict(background=[0, 0]), r'`background` must be three whole numbers from 0 to 255, got \[0, 0\]'),
            (dict(background=[0, 0, 300]), '`background` must be three whole numbers'),
            (dict(background=[0, 0, 0], color_type='grayscale'), "`background` needs color_type='color', got 'gray"),
        ],
    )
    def test_wrong_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            LoadImageFromFile(**options)


class TestTransparency:
    @pytest.mark.parametrize('name', ['alpha.png', 'alpha.webp'])
    def test_composed_on_a_background(self, name, tmp_path):
        (tmp_path / name).write_bytes(WHOLE[name])
        path = dict(img_path=str(tmp_path / name))
        image = LoadImageFromFile(background=[255, 128, 0])(path)['img']  # (30, 40, 3), BGR
        assert (image[15:] == [0, 128, 255]).all()
        assert np.array_equal(image[:15], np.asarray(PHOTO)[:15, :, ::-1])
        assert image.flags.c_contiguous
        assert torch.from_numpy(image).shape == (30, 40, 3)

    def test_a_data_set_with_such_images_is_warned_of(self, folder, data, tmp_path):
        cfg = load_config(folder / 'config.py')
        cfg.test_dataloader.dataset.data_root = str(data)
        for number in range(120):
            shutil.copy(data / 'val/0/a.png', data / f'val/1/b{number}.png')
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            Samples(cfg, 'test')
        for name in ('1/b0.png', '2/a.webp', '2/b.png', '2/c.png'):
            (data / 'val' / name).write_bytes(WHOLE['alpha.webp' if name.endswith('webp') else 'palette_alpha.png'])
        BROKEN['half a PNG'](data / 'val/2/d.png')
        with pytest.warns(UserWarning, match=r'^[23] of 6\d images that were looked at are transparent in places \(/'):
            Samples(cfg, 'test')
        cfg.test_dataloader.dataset.pipeline[0] = dict(type='mmrepvgg.LoadImageFromFile', background=[0, 0, 0])
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            Samples(cfg, 'test')

    @pytest.mark.filterwarnings('always:.* transparent in places')
    @pytest.mark.parametrize('name', ['test', 'train'])
    def test_every_command_warns(self, folder, data, name):
        (data / 'val/0/a.png').write_bytes(WHOLE['alpha.png'])
        (data / 'train/0/a.png').write_bytes(WHOLE['alpha.png'])
        warned = run_command(*STOPPING[name][0], cwd=folder).stderr
        assert re.search(rf'{name}: warning: 1 of 10 images .* \(data/digits/(val|train)/0/a\.png\)', warned)
        warned = run_command('predict', 'config.py', 'model.pth', 'data/digits/val', cwd=folder).stderr
        assert 'mmrepvgg predict: warning: 1 of 10 images' in warned

    def test_opaque_images_with_an_alpha_channel_are_none(self, tmp_path):
        PHOTO.convert('RGBA').save(tmp_path / 'x.png')
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            warn_of_transparency([str(tmp_path / 'x.png')], [])

    @pytest.mark.parametrize('name', ['colour.jpg', 'turned.jfif', 'deep_grey.png'])
    def test_other_images_stay(self, name, tmp_path):
        (tmp_path / name).write_bytes(WHOLE[name])
        images = [LoadImageFromFile(**options)(dict(img_path=str(tmp_path / name)))['img']
                  for options in ({}, dict(background=[255, 255, 255]))]  # fmt: skip
        assert np.array_equal(*images)
