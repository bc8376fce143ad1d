"""Predictions of real images: scikit-learn's digits and photographs."""

import csv
import json
import os
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from network_files import write_network_files
from sklearn.datasets import load_sample_images
from tool_runs import run_command, run_tool, succeed_here

from mmrepvgg import load_config
from mmrepvgg.commands import predict
from mmrepvgg.data.images import ImageReader, UnreadableImageError, iterate_batches, list_images
from mmrepvgg.prediction.files import write_predictions
from mmrepvgg.prediction.fonts import find_fonts
from mmrepvgg.prediction.pictures import PictureWriter
from mmrepvgg.prediction.predictor import Prediction, Predictor, RankedClass, get_class_names
from mmrepvgg.runtimes.classifier import load_classifier

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


@pytest.fixture(scope='module')
def workspace(digit_images, randomise, tmp_path_factory):
    """data/digits, photos/ with two good and three broken files, and the files of a small network."""
    folder = tmp_path_factory.mktemp('predict')
    (folder / 'data').symlink_to(digit_images.parent)
    (folder / 'photos' / 'more').mkdir(parents=True)
    china, flower = load_sample_images().images
    cv2.imwrite(str(folder / 'photos' / 'china.jpg'), china[..., ::-1])
    cv2.imwrite(str(folder / 'photos' / 'more' / 'flower.PNG'), flower[..., ::-1])
    whole = (folder / 'photos' / 'china.jpg').read_bytes()
    (folder / 'photos' / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'photos' / 'empty.png').touch()
    (folder / 'photos' / 'text.png').write_text('no image')
    (folder / 'photos' / 'notes.txt').write_text('no image, and not named like one')

    write_network_files(folder, load_config('repvgg-a0_digits'), randomise, CLASSES)
    return folder


@pytest.fixture(scope='module')
def cfg(workspace):
    return load_config(str(workspace / 'config.py'))


@pytest.fixture(scope='module')
def digits(workspace):
    return [image for image, _ in list_images([workspace / 'data/digits/val/3', workspace / 'data/digits/val/1'])][:50]


class TestPredictor:
    def test_the_best_classes_of_each_image(self, workspace, cfg, digits):
        found = Predictor(cfg, workspace / 'model.pth', topk=3, batch_size=16).predict(digits)
        model = load_classifier(cfg, workspace / 'model.pth')
        mean, std = (np.array(cfg.data_preprocessor[key], np.float32) for key in ('mean', 'std'))
        assert [prediction.image for prediction in found] == digits
        for prediction in found[::10]:
            image = cv2.cvtColor(cv2.resize(cv2.imread(str(prediction.image)), (32, 32)), cv2.COLOR_BGR2RGB)
            inputs = torch.from_numpy(((image - mean) / std).transpose(2, 0, 1)[None])
            with torch.no_grad():
                best = model.head(model.extract_feat(inputs)).softmax(1)[0].topk(3)
            assert [ranked.label for ranked in prediction.classes] == best.indices.tolist()
            assert [ranked.score for ranked in prediction.classes] == pytest.approx(best.values.tolist(), abs=1e-5)
            assert [ranked.name for ranked in prediction.classes] == [CLASSES[i] for i in best.indices]
        assert len({round(prediction.classes[0].score, 4) for prediction in found}) > 40, 'or any order would pass'

    def test_files_may_be_named_by_text(self, workspace, cfg, digits):
        predictor = Predictor(cfg, workspace / 'model.pth', topk=1)
        assert predictor.predict([str(digits[0])]) == predictor.predict(digits[:1])

    def test_an_exported_file_says_the_same(self, workspace, cfg, digits):
        ours, exported = (
            Predictor(cfg, workspace / name, topk=1, batch_size=n).predict(digits[:20])
            for name, n in (('model.pth', 7), ('model.onnx', 20))
        )
        for a, b in zip(ours, exported, strict=True):
            assert (a.image, a.classes[0].label, a.classes[0].name) == (b.image, b.classes[0].label, b.classes[0].name)
            assert a.classes[0].score == pytest.approx(b.classes[0].score, abs=1e-4)

    def test_broken_images_stand_at_their_places(self, workspace, cfg):
        photos = workspace / 'photos'
        paths = [photos / name for name in ('cut.jpg', 'china.jpg', 'empty.png', 'text.png', 'more/flower.PNG')]
        calls = []
        predictor = Predictor(cfg, workspace / 'model.pth', topk=99, batch_size=2)
        found = predictor.predict(paths, lambda number, prediction: calls.append((number, prediction)))
        assert [prediction.image for prediction in found] == paths
        assert [bool(prediction.error) for prediction in found] == [True, False, True, True, False]
        assert found[2].error == 'the file is empty'
        assert all(len(prediction.classes) == (0 if prediction.error else 10) for prediction in found)
        assert sum(ranked.score for ranked in found[1].classes) == pytest.approx(1, abs=1e-5)
        assert [found[number] for number, _ in calls] == [prediction for _, prediction in calls]
        assert sorted(number for number, _ in calls) == [0, 1, 2, 3, 4]

    def test_wrong_numbers(self, workspace, cfg):
        with pytest.raises(ValueError, match='`topk` and `batch_size` must be at least 1, got 0 and 16'):
            Predictor(cfg, workspace / 'model.pth', topk=0)

    @pytest.mark.parametrize(
        ('meta', 'num_classes', 'names'),
        [
            ({'classes': ('a', 'b')}, 2, ['a', 'b']),
            ({'classes': ('a', 'b')}, 3, ['a', 'b', '2']),
            ({'classes': ('a', 'b', 'c')}, 2, ['a', 'b']),
            ({}, 3, ['0', '1', '2']),
            (None, 2, ['0', '1']),
        ],
    )
    def test_class_names(self, meta, num_classes, names):
        model = torch.nn.Identity()
        model._dataset_meta = meta
        assert get_class_names(model, num_classes) == names

    def test_the_names_of_imagenet(self):
        names = get_class_names(torch.nn.Identity(), 1000)
        assert (len(names), names[0]) == (1000, 'tench, Tinca tinca')


class TestImages:
    def test_in_the_order_of_the_arguments(self, workspace):
        photos = workspace / 'photos'
        found = list_images([photos / 'notes.txt', photos, photos / 'china.jpg'])
        assert [relative.as_posix() for _, relative in found] == [
            'notes.txt', 'china.jpg', 'cut.jpg', 'empty.png', 'more/flower.PNG', 'text.png', 'china.jpg',
        ]  # fmt: skip

    def test_links(self, workspace, tmp_path):
        (tmp_path / 'folder').symlink_to(workspace / 'photos')
        (tmp_path / 'up').symlink_to(tmp_path)
        (tmp_path / 'gone.jpg').symlink_to('nowhere')
        found = [relative.as_posix() for _, relative in list_images([tmp_path])]
        assert 'folder/more/flower.PNG' in found
        assert found[-1] == 'gone.jpg'
        assert len(found) == len(set(found)) == 6

    def test_results_of_before_are_no_images(self, workspace, tmp_path):
        shutil.copytree(workspace / 'photos', tmp_path / 'photos')
        shutil.copytree(workspace / 'photos', tmp_path / 'photos/shown')
        found = list_images([tmp_path / 'photos'], tmp_path / 'photos/shown')
        assert found == list_images([tmp_path / 'photos'], tmp_path / 'photos/more/../shown')
        assert len(found) == 5

    def test_paths_that_hold_nothing(self, tmp_path):
        with pytest.raises(ValueError, match=r'holds no image \(\.jpg'):
            list_images([tmp_path])
        with pytest.raises(FileNotFoundError, match='no does not exist'):
            list_images([tmp_path / 'no'])

    def test_nothing_that_is_named_like_an_image_is_left_out_in_silence(self, cfg, tmp_path):
        (tmp_path / 'empty.png').mkdir()
        (tmp_path / 'full.png').mkdir()
        (tmp_path / 'full.png/x.png').touch()
        (tmp_path / 'self.png').symlink_to('self.png')
        os.mkfifo(tmp_path / 'pipe.png')  # reading it would wait for ever
        (tmp_path / '.hidden').mkdir()
        for name in ('.hidden/x.png', '._x.png'):
            (tmp_path / name).touch()
        found = list_images([tmp_path])
        assert [relative.as_posix() for _, relative in found] == ['empty.png', 'full.png/x.png', 'self.png']
        reasons = ['Is a directory', 'the file is empty', 'Too many levels of symbolic links']
        for (path, _), reason in zip(found, reasons, strict=True):
            with pytest.raises(UnreadableImageError, match=reason):
                ImageReader(cfg)(path)

    @pytest.mark.parametrize('function', [list_images, lambda paths: Predictor.predict(None, paths)])
    def test_one_path_in_the_place_of_a_list(self, function):
        with pytest.raises(TypeError, match="`paths` must be a list of .*, got 'a.png'"):
            function('a.png')

    def test_the_reason_is_short(self, workspace, cfg):
        with pytest.raises(UnreadableImageError, match='^the file is empty, or no image of a known format$'):
            ImageReader(cfg)(workspace / 'photos/text.png')

    def test_batches_are_of_one_size(self):
        sizes = [8, 8, 8, 8, 9, 8]
        samples = [(n, dict(inputs=torch.zeros(3, size, 8))) for n, size in enumerate(sizes)]
        assert [[n for n, _ in batch] for batch in iterate_batches(samples, 3)] == [[0, 1, 2], [3], [4], [5]]


RESULTS = [
    Prediction(Path('a.png'), (RankedClass(1, 'tench, "Tinca"', 0.75), RankedClass(0, 'crème', 0.25))),
    Prediction(Path('b.png'), error='the file is empty'),
]


class TestReports:
    def test_json(self, tmp_path):
        write_predictions(tmp_path / 'out.json', RESULTS)
        first, second = json.loads((tmp_path / 'out.json').read_text())
        assert first['predictions'][0] == {'label': 1, 'class': 'tench, "Tinca"', 'score': 0.75}
        assert second == {'image': 'b.png', 'error': 'the file is empty'}

    def test_csv(self, tmp_path):
        write_predictions(tmp_path / 'out.csv', RESULTS)
        with open(tmp_path / 'out.csv', newline='', encoding='utf-8') as file:
            lines = list(csv.DictReader(file))
        assert [(line['image'], line['rank'], line['class'], line['error']) for line in lines] == [
            ('a.png', '1', 'tench, "Tinca"', ''), ('a.png', '2', 'crème', ''), ('b.png', '', '', 'the file is empty'),
        ]  # fmt: skip

    def test_names_that_are_no_utf8(self, tmp_path):
        image = Path(os.fsdecode(b'\xff.png'))
        for suffix in ('.csv', '.json'):
            write_predictions(tmp_path / f'out{suffix}', [Prediction(image, RESULTS[0].classes)])
        assert b'\xff.png,1,1' in (tmp_path / 'out.csv').read_bytes()
        assert json.loads((tmp_path / 'out.json').read_text())[0]['image'] == str(image)

    def test_another_ending(self, tmp_path):
        with pytest.raises(ValueError, match=r'`path` must end in \.json or \.csv, got .*out\.xml'):
            write_predictions(tmp_path / 'out.xml', RESULTS)


class TestPictures:
    def test_the_text_is_on_an_enlarged_copy(self, tmp_path, digits):
        before = digits[0].read_bytes()
        PictureWriter(tmp_path, [(digits[0], Path('sub/x.bmp'))]).write(0, Prediction(digits[0], RESULTS[0].classes))
        picture = cv2.imread(str(tmp_path / 'sub/x.png'))
        assert picture.shape == (448, 448, 3)
        plain = cv2.resize(cv2.imread(str(digits[0])), (448, 448))
        changed = np.abs(picture.astype(int) - plain).max(2) > 40
        assert changed[:60, :300].mean() > 0.05
        assert not changed[150:].any()
        assert digits[0].read_bytes() == before

    def test_an_image_like_a_ribbon(self, tmp_path):
        cv2.imwrite(str(tmp_path / 'ribbon.png'), np.zeros((5, 9000, 3), np.uint8))
        images = [(tmp_path / 'ribbon.png', Path('ribbon.png'))]
        PictureWriter(tmp_path / 'out', images).write(0, Prediction(images[0][0], RESULTS[0].classes))
        assert max(cv2.imread(str(tmp_path / 'out/ribbon.png')).shape) <= 4096

    def test_no_picture_replaces_another_or_an_image(self, tmp_path):
        images = [(Path('a/x.png'), Path('x.png')), (Path('b/x.jpg'), Path('x.jpg'))]
        assert [target.name for target in PictureWriter(tmp_path, images).targets] == ['x.png', 'x_2.png']
        with pytest.raises(ValueError, match=r'a/x\.png is one of the images and would be replaced'):
            PictureWriter('a', images)

    def test_a_folder_that_can_not_be_written_is_noticed_at_once(self, tmp_path):
        (tmp_path / 'file').write_text('mine')
        for folder in ('file', 'file/shown'):
            with pytest.raises(PermissionError, match='can not be written: no file can be made in .*file'):
                PictureWriter(tmp_path / folder, [(Path('x.png'), Path('x.png'))])

    def test_what_lies_beside_the_images_is_not_replaced(self, tmp_path):
        (tmp_path / 'x.png').write_text('mine')
        with pytest.raises(ValueError, match=r'x\.png lies beside the images and would be replaced'):
            PictureWriter(tmp_path, [(tmp_path / 'x.jpg', Path('x.jpg'))])
        # a second run replaces the pictures of the first
        (tmp_path / 'shown').mkdir()
        (tmp_path / 'shown/x.png').write_text('of the first run')
        PictureWriter(tmp_path / 'shown', [(tmp_path / 'x.jpg', Path('x.jpg'))])

    def test_a_picture_that_can_not_be_written_stops_nothing(self, tmp_path, digits):
        (tmp_path / 'x.png').mkdir()
        writer = PictureWriter(tmp_path, [(digits[0], Path('x.bmp')), (digits[1], Path('y.bmp'))])
        for number in range(2):
            writer.write(number, Prediction(digits[number], RESULTS[0].classes))
        assert writer.failures == {tmp_path / 'x.png': 'there is a folder of this name'}
        assert (tmp_path / 'y.png').is_file()

    def test_names_in_all_scripts(self, tmp_path, digits):
        writer = PictureWriter(tmp_path, [(digits[0], Path('x.png'))])
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # matplotlib warns of each character that it lacks
            assert find_fonts('crème 8')[0] == ('DejaVu Sans Mono',)
            fonts, missing = find_fonts('\N{COMBINING ENCLOSING SQUARE}')  # not in the usual font
            assert (len(fonts), missing) == (2, '')
            writer.write(0, Prediction(digits[0], (RankedClass(0, '\N{COMBINING ENCLOSING SQUARE}', 0.75),)))
        assert (tmp_path / 'x.png').is_file()
        assert not writer.failures
        other = Prediction(digits[0], (RankedClass(0, chr(0xF1234), 0.75),))
        with pytest.warns(UserWarning, match='no font of this machine has the characters .* install one'):
            writer.write(0, other)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            writer.write(0, other)

    def test_no_picture_of_a_broken_image(self, tmp_path):
        PictureWriter(tmp_path / 'out', [(Path('b.png'), Path('b.png'))]).write(0, RESULTS[1])
        assert not (tmp_path / 'out').exists()


class TestTool:
    def test_files_pictures_and_the_list_of_unreadable_images(self, workspace):
        done = run_tool(
            'predict', 'config.py', 'model.onnx', 'photos', 'data/digits/val/7', '--topk', '2', '--out', 'out.json',
            '--show-dir', 'shown', cwd=workspace,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        num_sevens = len(list((workspace / 'data/digits/val/7').iterdir()))
        assert done.stdout == (
            f'out.json: {num_sevens + 2} images predicted, 3 unreadable\nshown: {num_sevens + 2} annotated pictures\n'
        )
        warning = done.stderr[done.stderr.index('warning: ') :].splitlines()
        assert warning[0] == f'warning: 3 of {num_sevens + 5} images could not be read:'
        assert [line.split(':')[0].strip() for line in warning[1:]] == [
            'photos/cut.jpg', 'photos/empty.png', 'photos/text.png',
        ]  # fmt: skip
        content = json.loads((workspace / 'out.json').read_text())
        assert [item['image'] for item in content[:5]] == [
            'photos/china.jpg', 'photos/cut.jpg', 'photos/empty.png', 'photos/more/flower.PNG', 'photos/text.png',
        ]  # fmt: skip
        assert all(item['predictions'][0]['class'] in CLASSES for item in content[5:])
        assert {len(item['predictions']) for item in content[5:]} == {2}
        assert (workspace / 'shown/more/flower.png').is_file()
        assert len(list((workspace / 'shown').rglob('*.png'))) == num_sevens + 2

    def test_no_readable_image_at_all(self, workspace):
        done = run_command('predict', 'config.py', 'model.pth', 'photos/text.png', 'photos/empty.png', cwd=workspace)
        assert (done.returncode, done.stdout) == (1, '')
        assert done.stderr.splitlines()[-1] == 'mmrepvgg predict: error: none of the 2 images could be read'

    def test_a_line_an_image(self, workspace):
        output = succeed_here('predict', 'config.py', 'model.pth', 'photos/china.jpg', '--topk', '2', cwd=workspace)
        name, _, classes = output.strip().partition(': ')
        assert name == 'photos/china.jpg'
        assert all(part.split()[0] in CLASSES for part in classes.split('; '))

    def test_names_reach_the_terminal_as_one_line(self, capsys):
        found = [Prediction(Path('a\n.png'), (RankedClass(0, '\x1b[31mred', 0.5), RankedClass(1, 'crème', 0.25)))]
        found.append(Prediction(Path('b\r.png'), error='the file is empty'))
        predict.report(SimpleNamespace(out=None, show_dir=None), found, {})
        out, err = capsys.readouterr()
        assert out == 'a\\n.png: \\x1b[31mred 0.5000; crème 0.2500\n'
        assert err.splitlines()[1:] == ['  b\\r.png: the file is empty']

    @pytest.mark.parametrize(
        ('args', 'status', 'message'),
        [
            (['config.py', 'model.pth'], 2, 'the following arguments are required: images'),
            (['config.py', 'model.pth', 'photos', '--topk', '0'], 2, 'must be a whole number of at least 1'),
            (['config.py', 'model.pth', 'photos', '--out', 'a.txt'], 2, "must end in .json or .csv, got 'a.txt'"),
            (['config.py', 'no.pth', 'photos'], 1, 'error: no.pth does not exist'),
            (['config.py', 'model.pth', 'photos', '--out', 'photos/notes.txt/a.csv'], 1, 'can not be written'),
            (['config.py', 'model.pth', 'photos', 'no.jpg'], 1, 'error: no.jpg does not exist'),
        ],
    )
    def test_wrong_arguments_are_named_before_torch_is_imported(self, workspace, args, status, message):
        done = run_tool('predict', *args, cwd=workspace, without=['torch'])
        assert done.returncode == status
        assert message in done.stderr
