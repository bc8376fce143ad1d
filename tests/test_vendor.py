"""Inputs for hardware without Python, and the score of what comes back; ONNX Runtime is the vendor."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from network_files import write_network_files
from tool_runs import run_command, run_tool, succeed_here

from mmrepvgg import load_config
from mmrepvgg.engine.testing import evaluate
from mmrepvgg.handoff.listing import InputList, ListedImage, ListError, make_names, read_list
from mmrepvgg.handoff.outputs import read_outputs
from mmrepvgg.handoff.preprocessed import write_inputs
from mmrepvgg.handoff.scoring import score_outputs

DIGITS = 'repvgg-a0_digits'
# every third image of the validation set
NUM_IMAGES = 120


def read_report(output):
    return dict(line.rsplit(': ', 1) for line in output.splitlines() if line.startswith('accuracy/'))


@pytest.fixture(scope='module')
def workspace(digit_images, randomise, tmp_path_factory):
    """A folder with the files of a small network, whose config has a part of the digits."""
    folder = tmp_path_factory.mktemp('vendor')
    cfg = load_config(DIGITS)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.indices = list(range(0, 360, 3))
        loader.dataset.data_root = str(digit_images)
        loader.update(num_workers=0, persistent_workers=False)
    write_network_files(folder, cfg, randomise)
    return folder


@pytest.fixture(scope='module')
def cfg(workspace):
    return load_config(str(workspace / 'config.py'))


@pytest.fixture(scope='module')
def inputs(workspace, cfg):
    write_inputs(cfg, workspace / 'inputs')
    return workspace / 'inputs'


def run_vendor(workspace, inputs, outputs, softmax=False):
    """What a vendor's box does: run each file, write one of the same name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(workspace / 'model.onnx', providers=['CPUExecutionProvider'])
    outputs.mkdir()
    answers = {}
    for file in sorted((inputs / 'inputs').iterdir()):
        content = np.load(file, allow_pickle=False)
        x = content if isinstance(content, np.ndarray) else content['images']
        (logits,) = session.run(None, {'images': x.astype(np.float32)})
        if softmax:
            logits = np.exp(logits - logits.max(1, keepdims=True))
            logits /= logits.sum(1, keepdims=True)
        np.savez(outputs / f'{file.stem}.npz', output_0=logits)
        answers[file.stem] = logits
    return answers


@pytest.fixture(scope='module')
def answers(workspace, inputs):
    return run_vendor(workspace, inputs, workspace / 'outputs')


@pytest.fixture(scope='module')
def expected(workspace):
    return read_report(succeed_here('test', 'config.py', 'model.pth', '--metrics', 'accuracy', cwd=workspace))


class TestRoundTrip:
    def test_the_score_is_that_of_the_test_tool(self, workspace, inputs, answers, expected):
        # scoring needs no torch
        done = run_tool('score_outputs', 'inputs', 'outputs', cwd=workspace, without=['torch'])
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(f'{NUM_IMAGES} images listed, {NUM_IMAGES} scored\n')
        assert read_report(done.stdout) == expected
        # an accuracy of 0 or 100 would prove little
        assert 1 < float(expected['accuracy/top1']) < float(expected['accuracy/top5']) < 100

    def test_batches_of_npy_through_the_tool(self, workspace, expected):
        args = ['--format', 'npy', '--batch-size', '50', '--fill', '--dtype', 'float16']
        done = run_tool('export_inputs', 'config.py', 'batched', *args, cwd=workspace)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f'batched: {NUM_IMAGES} images in 3 npy files of 50 x 3 x 32 x 32\n'
        last = np.load(workspace / 'batched/inputs/batch_000002.npy', allow_pickle=False)
        assert last.dtype == np.float16
        assert last.shape == (50, 3, 32, 32)
        assert last[:20].any(axis=(1, 2, 3)).all()
        assert not last[20:].any()
        run_vendor(workspace, workspace / 'batched', workspace / 'batched_outputs', softmax=True)
        report = succeed_here('score-outputs', 'batched', 'batched_outputs', cwd=workspace)
        found = {name: float(value) for name, value in read_report(report).items()}
        # rounding the inputs to float16 may move an image
        assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1)

    def test_inputs_are_what_the_model_sees(self, cfg, inputs):
        listing = read_list(inputs)
        assert len(listing.images) == NUM_IMAGES
        assert (listing.num_classes, listing.batch_size, listing.filled) == (10, 1, False)
        with open(inputs / 'list.csv', newline='') as file:
            lines = list(csv.DictReader(file))
        for line in lines[::40]:
            assert line['label'] == Path(line['image']).parent.name
            image = cv2.cvtColor(cv2.resize(cv2.imread(line['image']), (32, 32)), cv2.COLOR_BGR2RGB)
            mean, std = (np.array(cfg.data_preprocessor[key], np.float32) for key in ('mean', 'std'))
            with np.load(inputs / line['file'], allow_pickle=False) as content:
                assert content.files == ['images']
                assert content['images'].dtype == np.float32
                np.testing.assert_allclose(content['images'][0], ((image - mean) / std).transpose(2, 0, 1), atol=1e-5)

    def test_pixels_for_models_that_normalise_by_themselves(self, cfg, tmp_path):
        write_inputs(cfg, tmp_path / 'raw', dtype='uint8', entry='x')
        first = read_list(tmp_path / 'raw').images[0]
        with np.load(tmp_path / 'raw' / first.file) as content:
            assert content['x'].dtype == np.uint8
            image = cv2.imread(f'{cfg.test_dataloader.dataset.data_root}/val/{first.label}/{first.name}.png')
            np.testing.assert_array_equal(content['x'][0].transpose(1, 2, 0), cv2.resize(image, (32, 32)))


class TestWriting:
    def test_a_folder_with_something_in_it_is_left_alone(self, cfg, tmp_path):
        (tmp_path / 'mine.txt').write_text('mine')
        with pytest.raises(FileExistsError, match='exists and is not an empty folder'):
            write_inputs(cfg, tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ['mine.txt']

    def test_a_folder_that_can_not_be_written_is_noticed_before_the_images_are_read(self, cfg, tmp_path):
        (tmp_path / 'file').write_text('mine')
        cfg = load_config(DIGITS)  # its images are not there
        with pytest.raises(PermissionError, match='can not be written: no file can be made in .*file'):
            write_inputs(cfg, tmp_path / 'file/inputs')

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(file_format='bin'), r"`file_format` must be one of \('npz', 'npy'\), got 'bin'"),
            (dict(dtype='int8'), "`dtype` must be one of .*, got 'int8'"),
            (dict(batch_size=0), '`batch_size` must be at least 1, got 0'),
            (dict(entry='file'), "`entry` must be another name, got 'file'"),
        ],
    )
    def test_wrong_options(self, cfg, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            write_inputs(cfg, tmp_path / 'out', **options)

    @pytest.mark.parametrize('num_workers', [0, 1])
    def test_an_unreadable_image_leaves_nothing_behind(self, cfg, tmp_path, num_workers):
        broken = load_config(DIGITS)
        broken.test_dataloader.num_workers = num_workers
        shutil.copytree(f'{cfg.test_dataloader.dataset.data_root}/val', tmp_path / 'data/val')
        image = next((tmp_path / 'data/val/3').iterdir())
        image.write_bytes(image.read_bytes()[:40])
        broken.test_dataloader.dataset.data_root = str(tmp_path / 'data')
        with pytest.raises((ValueError, AssertionError), match=f'{image.name} can not be read: the file is empty'):
            write_inputs(broken, tmp_path / 'out', batch_size=8)
        assert [file.name for file in tmp_path.iterdir()] == ['data']

    def test_images_of_different_sizes(self, cfg, tmp_path):
        for label in range(10):
            (tmp_path / f'data/val/{label}').mkdir(parents=True)
        for name, height in (('a', 20), ('b', 24)):
            cv2.imwrite(str(tmp_path / f'data/val/0/{name}.png'), np.zeros((height, 20, 3), np.uint8))
        uneven = load_config(DIGITS)
        uneven.test_dataloader.num_workers = 0
        uneven.test_dataloader.dataset.update(
            data_root=str(tmp_path / 'data'), pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]
        )
        with pytest.raises(ValueError, match=r'one size, got \(3, 24, 20\) for .*b.png after \(3, 20, 20\)'):
            write_inputs(uneven, tmp_path / 'out')

    def test_data_of_other_classes(self, workspace, digit_images, tmp_path):
        for label in '125':
            shutil.copytree(digit_images / f'val/{label}', tmp_path / f'data/val/{label}')
        cfg = load_config(str(workspace / 'config.py'))
        cfg.test_dataloader.dataset.data_root = str(tmp_path / 'data')
        cfg.test_dataloader.dataset.pop('indices')
        with pytest.raises(ValueError, match=r'the test data has 3 classes \(1, 2, 5, \.\.\.\) and the model 10'):
            write_inputs(cfg, tmp_path / 'out')
        with pytest.raises(ValueError, match='the test data has 3 classes'):
            evaluate(cfg, workspace / 'model.pth', str(tmp_path / 'work'), metrics=['accuracy'])

    def test_a_disk_that_is_too_small_is_noticed_at_once(self, cfg, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, 'disk_usage', lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 10**6))
        with pytest.raises(OSError, match=r'the inputs take 0\.0 GB, and .* has 0\.0 GB free'):
            write_inputs(cfg, tmp_path / 'out')
        assert not list(tmp_path.iterdir())


class TestNames:
    @pytest.mark.parametrize(
        ('paths', 'names'),
        [
            (['val/a/1.png', 'val/b/2.png'], ['1', '2']),
            (['val/a/1.png', 'val/b/1.png'], ['a__1', 'b__1']),
            (['val/a/1.png', 'val/a/1.jpg'], ['1.png', '1.jpg']),
            (['one.png'], ['one']),
            ([], []),
        ],
    )
    def test_names_are_as_short_as_can_be(self, paths, names):
        assert make_names(paths) == names

    def test_one_image_twice(self):
        with pytest.raises(ListError, match=r'a name of its own, and 1\.png is there 2 times'):
            make_names(['val/1.png', 'val/1.png'])

    @pytest.mark.parametrize(
        ('name', 'index'),
        [
            ('cat__1', 0),
            ('inputs/cat__1.npz', 0),
            ('/data/val/cat/1.JPEG', 0),
            ('data\\val\\cat\\1.png', 0),
            ('/data/val/1.png', 1),
            ('v1.5', 2),
            ('out/v1.5.npy', 2),
            ('dog/1.png', 1),
            ('dog/1.jfif', 1),
            ('2', None),
            ('v1', None),
        ],
    )
    def test_images_are_found_by_paths(self, name, index):
        listing = InputList([ListedImage(n, f'inputs/{n}.npz', 0, 0) for n in ('cat__1', '1', 'v1.5')], 10)
        assert listing.find_image(name) == index


@pytest.fixture
def listing():
    return InputList([ListedImage(name, f'inputs/{name}.npz', 0, label) for label, name in enumerate('abcdef')], 6)


def score(listing, *paths, **kwargs):
    return score_outputs(listing, read_outputs(paths, listing, **kwargs))


def problems_of(result):
    return [(problem.kind, problem.name) for problem in result.problems]


def write_answers(folder, names='abcdef', num_classes=6):
    """Right answers for all but the last."""
    folder.mkdir()
    for label, name in enumerate(names):
        scores = np.zeros((1, num_classes), np.float32)
        scores[0, label if label < 5 else 0] = 1
        np.savez(folder / f'{name}.npz', output=scores)
    return folder


class TestProblems:
    def test_every_kind_in_one_folder(self, listing, tmp_path):
        folder = write_answers(tmp_path / 'out')
        (folder / 'a.npz').unlink()
        np.save(folder / 'b.npy', np.zeros((1, 6)))
        np.savez(folder / 'c.npz', output=np.zeros((1, 7)))
        np.savez(folder / 'd.npz', output=np.array([[0, 1, np.nan, 0, 0, np.inf]]))
        np.savez(folder / 'z.npz', output=np.zeros((1, 6)))
        result = score(listing, folder)
        assert problems_of(result) == [
            ('missing', 'a'), ('duplicated', 'b'), ('malformed', 'c'), ('malformed', 'd'), ('extra', 'z.npz'),
        ]  # fmt: skip
        assert 'must have shape (1, 6), got (1, 7)' in result.problems[2].reason
        assert '2 of 6 values are NaN or infinite' in result.problems[3].reason
        assert (result.num_listed, result.num_scored, result.num_correct) == (6, 2, {1: 1, 5: 1})
        assert result.get_accuracy(1) == 50
        assert result.get_accuracy(1, of_all=True) == pytest.approx(100 / 6)

    def test_the_tool_says_it_all_and_fails(self, workspace, inputs, answers, tmp_path):
        shutil.copytree(workspace / 'outputs', tmp_path / 'out')
        first, second, *_ = sorted(answers)
        (tmp_path / 'out' / f'{first}.npz').unlink()
        (tmp_path / 'out' / f'{second}.npz').write_bytes(b'PK\x03\x04 cut off')
        done = run_command('score-outputs', inputs, 'out', '--out', 'score.json', cwd=tmp_path)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.endswith(f'error: {NUM_IMAGES - 2} of {NUM_IMAGES} images have one good answer '
                             '(1 missing, 1 malformed)')  # fmt: skip
        assert f'missing: 1\n  {first}\n' in done.stdout
        assert f'malformed: 1\n  {second} (out/{second}.npz: no readable array file' in done.stdout
        assert 'accuracy/top1' not in done.stdout
        assert f'top-1 of the {NUM_IMAGES - 2} scored images' in done.stdout
        report = json.loads((tmp_path / 'score.json').read_text())
        assert [item['name'] for item in report['missing']] == [first]

    def test_python_objects_are_not_loaded(self, listing, tmp_path):
        class Attack:
            def __reduce__(self):
                return (tmp_path / 'proof').touch, ()

        folder = write_answers(tmp_path / 'out')
        np.savez(folder / 'a.npz', output=np.array([Attack()], dtype=object))
        np.save(folder / 'b.npy', np.array([Attack()], dtype=object), allow_pickle=True)
        (folder / 'b.npz').unlink()
        result = score(listing, folder)
        assert problems_of(result) == [('malformed', 'a'), ('malformed', 'b')]
        assert all('Python objects, which could run code' in problem.reason for problem in result.problems)
        assert not (tmp_path / 'proof').exists()

    @pytest.mark.filterwarnings('ignore:Duplicate name')
    def test_archives_that_unpack_to_more_than_they_are_or_to_one_of_two(self, listing, tmp_path):
        folder = write_answers(tmp_path / 'out')
        np.savez_compressed(folder / 'a.npz', output=np.zeros(1 << 25))
        with zipfile.ZipFile(folder / 'b.npz', 'a') as archive:
            archive.writestr('output.npy', archive.read('output.npy'))
        result = score(listing, folder)
        assert problems_of(result) == [('malformed', 'a'), ('malformed', 'b')]
        assert 'too many for a file of' in result.problems[0].reason
        assert 'several members of one name' in result.problems[1].reason

    def test_several_entries(self, listing, tmp_path):
        folder = write_answers(tmp_path / 'out')
        np.savez(folder / 'a.npz', output=np.eye(6)[:1], features=np.zeros((1, 99)))
        result = score(listing, folder)
        assert problems_of(result) == [('malformed', 'a')]
        assert (
            'must have one entry (or name the right one by `entry`), got output, features' in result.problems[0].reason
        )
        assert score(listing, folder, entry='output').num_scored == 6

    @pytest.mark.parametrize('array', [np.array(['x']), np.zeros((1, 6), bool), np.zeros((2, 3)), np.zeros((6, 6))])
    def test_arrays_that_are_no_answer(self, listing, tmp_path, array):
        folder = write_answers(tmp_path / 'out')
        np.savez(folder / 'a.npz', output=array)
        assert problems_of(score(listing, folder)) == [('malformed', 'a')]

    @pytest.mark.parametrize('shape', [(6,), (1, 6, 1, 1), (1, 1, 6)])
    def test_shapes_that_vendors_give(self, listing, tmp_path, shape):
        folder = write_answers(tmp_path / 'out')
        np.savez(folder / 'a.npz', output=np.eye(6)[0].reshape(shape))
        assert score(listing, folder).num_correct[1] == 5

    def test_constant_outputs_are_no_right_answers(self, listing, tmp_path):
        folder = write_answers(tmp_path / 'out')
        for name in 'abcdef':
            np.savez(folder / f'{name}.npz', output=np.zeros((1, 6)))
        result = score(listing, folder)
        assert result.num_correct == {1: 1, 5: 5}
        assert result.num_tied == 6

    def test_the_bits_of_bfloat16_are_no_scores(self, listing, tmp_path):
        """All negative, as the logarithms of probabilities are, they would be in the opposite order."""
        folder = write_answers(tmp_path / 'out')
        for label, name in enumerate('abcdef'):
            bits = (np.eye(6, dtype='f4')[label : label + 1] - 2).view(np.uint32) >> 16
            np.savez(folder / f'{name}.npz', output=bits.astype(np.uint16))
        result = score(listing, folder)
        assert problems_of(result) == [('malformed', name) for name in 'abcdef']
        assert 'may be the bits of bfloat16; save them as float32' in result.problems[0].reason

    def test_missing_paths(self, listing, tmp_path):
        with pytest.raises(FileNotFoundError, match='no does not exist'):
            score(listing, tmp_path / 'no')
        with pytest.raises(FileNotFoundError, match=r'holds no file that ends in any of \.npz, \.npy, \.txt'):
            score(listing, tmp_path)

    @pytest.mark.parametrize(
        'damage',
        [
            lambda content: content.replace(b'}', b'{', 1),
            lambda content: content.replace(b'(1, 6)', b'(9999999999999, 6)').replace(b'[', b'['),
            lambda content: b'scores' + content,
            lambda content: b'',
        ],
        ids=['header', 'huge', 'no magic', 'empty'],
    )
    def test_one_damaged_array_is_one_problem(self, listing, tmp_path, damage):
        folder = tmp_path / 'out'
        folder.mkdir()
        for label, name in enumerate('abcdef'):
            np.save(folder / f'{name}.npy', np.eye(6)[label : label + 1])
        (folder / 'c.npy').write_bytes(damage((folder / 'c.npy').read_bytes()))
        result = score(listing, folder)
        assert problems_of(result) == [('malformed', 'c')]
        assert 'Python objects' not in result.problems[0].reason
        assert result.num_correct[1] == 5

    def test_a_damaged_member(self, listing, tmp_path):
        folder = write_answers(tmp_path / 'out')
        content = (folder / 'b.npz').read_bytes()
        for position in range(0, len(content), 3):  # whatever byte it is, it is one image's problem
            (folder / 'b.npz').write_bytes(content[:position] + b'\xff' + content[position + 1 :])
            result = score(listing, folder)
            assert {problem.name for problem in result.problems} <= {'b', 'b.npz'}
            assert result.num_scored >= 5


class TestBatches:
    @pytest.fixture
    def listing(self):
        images = [ListedImage(name, f'inputs/batch_{n // 4:06d}.npy', n % 4, n) for n, name in enumerate('abcdef')]
        return InputList(images, 6, batch_size=4, filled=True)

    def test_rows_are_named_by_the_list(self, listing, tmp_path):
        np.save(tmp_path / 'batch_000001.npy', np.eye(6)[[4, 5, 0, 0]])
        np.save(tmp_path / 'batch_000000.npy', np.eye(6)[:4])
        result = score(listing, tmp_path)
        assert result.num_correct == {1: 6, 5: 6}
        assert not result.problems

    def test_a_batch_of_another_length(self, listing, tmp_path):
        np.save(tmp_path / 'batch_000001.npy', np.eye(6)[[4, 5, 0]])
        np.save(tmp_path / 'batch_000000.npy', np.eye(6)[:3])
        assert problems_of(score(listing, tmp_path)) == [('malformed', name) for name in 'abcdef']

    def test_more_rows_than_images_where_nothing_was_filled(self, listing, tmp_path):
        listing.filled = False
        np.save(tmp_path / 'batch_000001.npy', np.eye(6)[[4, 5, 0, 0]])
        assert [problem.kind for problem in score(listing, tmp_path).problems] == ['missing'] * 4 + ['malformed'] * 2


class TestOneFile:
    def test_an_entry_an_image(self, listing, tmp_path):
        names = ['val/f.png', *'edcb', 'unknown']
        np.savez(tmp_path / 'all.npz', **{name: np.eye(6)[max(0, 5 - n)] for n, name in enumerate(names)})
        result = score(listing, tmp_path / 'all.npz')
        assert problems_of(result) == [('missing', 'a'), ('extra', 'unknown')]
        assert result.num_correct[1] == 5

    def test_names_and_one_array(self, listing, tmp_path):
        np.savez(tmp_path / 'all.npz', names=np.array(['f', 'a', 'b', 'a']), logits=np.eye(6)[[5, 0, 1, 0]])
        result = score(listing, tmp_path / 'all.npz')
        assert problems_of(result) == [('duplicated', 'a'), *(('missing', name) for name in 'cde')]
        assert result.num_correct[1] == 2

    def test_names_as_bytes(self, listing, tmp_path):
        np.savez(tmp_path / 'all.npz', names=np.array([b'f', 'ä'.encode()]), logits=np.eye(6)[[5, 0]])
        assert ('extra', 'ä') in problems_of(score(listing, tmp_path / 'all.npz'))
        np.savez(tmp_path / 'all.npz', names=np.array([b'f', b'\xff']), logits=np.eye(6)[[5, 0]])
        assert ('malformed', 'all.npz') in problems_of(score(listing, tmp_path / 'all.npz'))

    def test_nothing_in_it_has_a_name(self, listing, tmp_path):
        np.savez(tmp_path / 'all.npz', output=np.eye(6))
        np.save(tmp_path / 'all.npy', np.eye(6))
        result = score(listing, tmp_path / 'all.npz', tmp_path / 'all.npy')
        assert problems_of(result)[-2:] == [('extra', 'all.npz'), ('extra', 'all.npy')]
        assert result.num_scored == 0
        assert np.isnan(result.get_accuracy(1))


class TestTexts:
    @pytest.mark.parametrize(
        'text',
        [
            'f 5 0\na 0 1\nb 1 0\nc 2 0\nd 3 0\ne 1 4\n',
            '# image, classes\nval/f.png,5,0\na,0,1\nb,1,0\nc,2,0\n\nd,3,0\ne,1,4\n',
            'f\t5:0.9\t0:0.1\na\t0:1\t1:0\nb\t1:1\t0:0\nc\t2:1\t0:0\nd\t3:1\t0:0\ne\t1:1\t4:0\n',
            ''.join(
                f'val/x/{name}.JPEG: Relay top-{rank} id: {label}, prob: 0.5, class name: some: thing\n'
                for name, labels in dict(f=(5, 0), a=(0, 1), b=(1, 0), c=(2, 0), d=(3, 0), e=(1, 4)).items()
                for rank, label in enumerate(labels)
            ),
            '\ufefff 5, 0\na 0, 1\nb 1, 0,\nc 2, 0\nd 3, 0\ne 1, 4\n',
            '"f",5,0\n"val/a.png",0,1\n"b",1,0\n"c","2","0"\n"d",3,0\n"e",1,4\n',
            ''.join(
                f'{name}: Relay top-{rank} id: {label}, prob: {1 - rank / 10}\n'
                for name, labels in dict(f=(5, 0), a=(0, 1), b=(1, 0), c=(2, 0), d=(3, 0), e=(1, 4)).items()
                for rank, label in enumerate(labels, 1)
            ),
        ],
    )
    def test_each_notation(self, listing, tmp_path, text):
        (tmp_path / 'top.txt').write_text(text, encoding='utf-8')
        # the file itself, or the folder that it is in
        for path in (tmp_path / 'top.txt', tmp_path):
            result = score_outputs(listing, read_outputs([path], listing), topk=(1, 2, 5))
        assert not result.problems
        assert result.num_correct == {1: 5, 2: 6}, 'and no top-5 of two classes'

    def test_every_kind_of_problem(self, listing, tmp_path):
        (tmp_path / 'top.txt').write_text('a 0 1\nb 1\nc 2 9\nd 3 3\ne four 1\nz 1 2\na 0 1\nf 5 0\n')
        result = score(listing, tmp_path / 'top.txt')
        assert sorted(problems_of(result)) == sorted(
            [('duplicated', 'a'), *(('malformed', name) for name in 'bcde'), ('extra', 'z')]
        )
        reasons = {problem.name: problem.reason for problem in result.problems}
        assert 'must have 2 classes as most images, got 1' in reasons['b']
        assert 'classes must be 0 to 5, got (2, 9)' in reasons['c']
        assert 'classes must differ, got (3, 3)' in reasons['d']
        assert "top.txt:5: must be an image and its classes, best first, got 'e four 1'" in reasons['e']
        assert result.num_scored == 1

    @pytest.mark.parametrize('separator', [' ', '\t', ','])
    def test_names_with_blanks(self, tmp_path, separator):
        names = ['my cat', 'my cat 7', 'a  b', '3 5']
        images = [ListedImage(name, f'inputs/{name}.npz', 0, label) for label, name in enumerate(names)]
        answers = {'val/my cat.jpg': (0, 1), 'my cat 7': (1, 3), 'a  b': (2, 0), '3 5': (3, 1)}
        lines = [separator.join([name, *map(str, labels)]) for name, labels in answers.items()]
        (tmp_path / 'top.txt').write_text('\n'.join(lines))
        result = score(InputList(images, 8), tmp_path / 'top.txt')
        assert not result.problems
        assert result.num_correct[1] == 4

    def test_scores_must_be_numbers_and_fall(self, listing, tmp_path):
        (tmp_path / 'top.txt').write_text(
            'a 0:0.9 1:0.1\nb 1:nan 0:0.1\nc 2:x 0:0.1\nd 0:0.1 3:0.9\n'
            'e: top-0 id: 4, prob: 0.2\ne: top-1 id: 0, prob: 0.8\n'
            'f: top-1 id: 0, prob: 0.1\nf: top-2 id: 5, prob: 0.1\n'
        )
        result = score(listing, tmp_path / 'top.txt')
        assert sorted(problems_of(result)) == [('malformed', name) for name in 'bcdef']
        reasons = {problem.name: problem.reason for problem in result.problems}
        assert "scores must be finite numbers, got 'nan'" in reasons['b']
        assert "scores must be finite numbers, got 'x'" in reasons['c']
        assert 'classes must be the best first, got the scores [0.1, 0.9]' in reasons['d']
        assert 'classes must be the best first' in reasons['e']
        assert 'ranks must be 0 and the ones after it, got [1, 2]' in reasons['f']

    def test_a_rank_notation_that_is_there_twice(self, listing, tmp_path):
        lines = [f'a: Relay top-{rank} id: {rank}, prob: 0.5\n' for rank in range(3)]
        (tmp_path / 'top.txt').write_text(''.join(lines * 2))
        assert problems_of(score(listing, tmp_path / 'top.txt'))[0] == ('duplicated', 'a')

    @pytest.mark.parametrize(
        'line',
        [
            # in time quadratic in the length of the line these would take hours
            ': ' * 10**6,
            'c' + ' ' * 10**6 + ': top-0',
            'c/' * 10**6 + ' 0 1',
            # what int() and the reader of CSV refuse
            f'c {"1" * 5000}',
            f'c: top-0 id: {"1" * 5000}',
            f'c: top-{"1" * 5000} id: 1',
            f'"{"c" * 200_000}",0,1',
        ],
    )
    def test_one_crafted_line_is_one_problem(self, listing, tmp_path, line):
        (tmp_path / 'top.txt').write_text(f'a 0 1\nb 1 0\n{line}\nd 3 0\ne 1 4\nf 5 0\n')
        result = score(listing, tmp_path / 'top.txt')
        assert result.num_scored == 5
        assert len(result.problems) <= 2
        assert all(len(problem.name) + len(problem.reason) < 500 for problem in result.problems)

    def test_a_file_that_is_no_text(self, listing, tmp_path):
        (tmp_path / 'top.bin').write_bytes(bytes(range(256)))
        assert problems_of(score(listing, tmp_path / 'top.bin'))[-1] == ('malformed', 'top.bin')


class TestLists:
    def test_what_must_be_there(self, inputs, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'list\.csv does not exist; give the folder'):
            read_list(tmp_path)
        for name in ('list.csv', 'info.json'):
            shutil.copy(inputs / name, tmp_path)
        assert len(read_list(tmp_path).images) == NUM_IMAGES

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('a,b\n1,2\n', 'must have the columns name,file,row,label,image'),
            ('name,file,row,label\nx,x.npz,0,three\n', "line 2: invalid literal for int.*'three'"),
            ('name,file,row,label\nx,x.npz,0,10\n', 'labels must be 0 to 9, got 10 for x'),
            ('name,file,row,label\nx,x.npz,0,1\nx,y.npz,0,1\n', 'every name once, and x is there 2 times'),
            ('name,file,row,label\n', 'lists no image'),
            (f'name,file,row,label\n"{"x" * 200_000}",x.npz,0,1\n', 'field larger than field limit'),
        ],
    )
    def test_damaged_lists(self, inputs, tmp_path, text, message):
        shutil.copy(inputs / 'info.json', tmp_path)
        (tmp_path / 'list.csv').write_text(text)
        with pytest.raises(ListError, match=message):
            read_list(tmp_path)

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('{}', 'KeyError'),
            ('{"num_classes": "many", "batch_size": 1, "filled": false}', 'ValueError'),
            ('{"num_classes": 10, "batch_size": 0, "filled": false}', 'must be at least 1'),
            ('{"num_classes": 1e999, "batch_size": 1, "filled": false}', 'OverflowError'),
            (f'{{"num_classes": {10**30}, "batch_size": 1, "filled": false}}', 'and at most 16,777,216'),
            ('[' * 100_000, 'RecursionError'),
        ],
    )
    def test_damaged_information(self, inputs, tmp_path, text, message):
        shutil.copy(inputs / 'list.csv', tmp_path)
        (tmp_path / 'info.json').write_text(text)
        with pytest.raises(ListError, match=f'info.json is damaged: .*{message}'):
            read_list(tmp_path)


class TestUsage:
    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['export_inputs', DIGITS, 'out', '--batch-size', '0'], 'must be a whole number of at least 1'),
            (['export_inputs', DIGITS, 'out', '--format', 'bin'], "invalid choice: 'bin'"),
            (['score_outputs', 'in'], 'the following arguments are required: outputs'),
            (['score_outputs', 'in', 'out', '--out', 'a.txt'], "must end in .json, got 'a.txt'"),
        ],
    )
    def test_wrong_usage_exits_with_2_before_torch_is_imported(self, args, message, tmp_path):
        done = run_tool(*args, cwd=tmp_path, without=['torch'])
        assert done.returncode == 2
        assert message in done.stderr
