"""Predictions of many images by Ray: two workers, killed and taken up again."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray
import torch
from network_files import write_network_files
from pyarrow import parquet
from tool_runs import ROOT, fail_here, run_tool, succeed_here

from mmrepvgg import Predictor, load_config, predict_many
from mmrepvgg.data.images import list_images
from mmrepvgg.prediction.many import _Worker
from mmrepvgg.prediction.parts import SETTINGS, count_rows

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
PART = 'part-000000.parquet'
# 360 digits and three files that are no images
ARGS = ['config.py', 'model.pth', 'images', '--out', 'out', '--workers', '2', '--part-size', '10', '--topk', '3']


@pytest.fixture(scope='module')
def workspace(digit_images, randomise, tmp_path_factory):
    """images/ and the files of a small network."""
    folder = tmp_path_factory.mktemp('many')
    shutil.copytree(digit_images / 'val', folder / 'images')
    (folder / 'images/3/empty.png').touch()
    (folder / 'images/5/text.png').write_text('no image')
    (folder / 'images/9' / os.fsdecode(b'\xff.png')).write_text('no image, and its name is no UTF-8')
    write_network_files(folder, load_config('repvgg-a0_digits'), randomise, CLASSES)
    return folder


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return load_config('config.py')


@pytest.fixture
def short_folder():
    """Ray's sockets need short paths."""
    folder = tempfile.mkdtemp(prefix='many-', dir='/tmp')
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def read_rows(folder):
    return [row for path in sorted(folder.glob('*.parquet')) for row in parquet.read_table(path).to_pylist()]


def list_processes(mark):
    """The command lines of processes that have ``mark`` in them."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            line = path.read_bytes().decode(errors='replace')
        except OSError:
            continue
        found += [line] if mark in line else []
    return found


def wait_until(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_killed_run_is_taken_up_and_predicts_as_one_process_does(inside, workspace, short_folder, monkeypatch):
    folder = workspace / 'out'
    with subprocess.Popen(
        [sys.executable, ROOT / 'tools/predict_many.py', *ARGS],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': short_folder},
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: list(folder.glob('part-*.parquet')) or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    # Ray ends with the process that started it
    wait_until(lambda: not list_processes(short_folder))
    whole = {path: path.stat().st_mtime_ns for path in folder.glob('part-*.parquet')}
    assert 0 < len(whole) < 37
    (folder / '.1.part-000036.parquet').write_text('half')

    monkeypatch.setattr(tempfile, 'tempdir', short_folder)
    done = succeed_here('predict-many', *ARGS, cwd=workspace)
    assert done == f'out: 360 images predicted, 3 unreadable; 37 Parquet files ({len(whole)} were there already)\n'
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f'part-{number:06d}.parquet' for number in range(37)), SETTINGS,
    ]  # fmt: skip
    assert not ray.is_initialized()

    images = [image for image, _ in list_images(['images'])]
    rows = read_rows(folder)
    predictor = Predictor(inside, 'model.pth', topk=3, num_threads=1)
    parts = [predictor.predict(images[start : start + 10]) for start in range(0, len(images), 10)]
    wanted = [prediction for part in parts for prediction in part]
    assert len(rows) == len(wanted) == 363
    for row, prediction in zip(rows, wanted, strict=True):
        assert row['image'] == str(prediction.image).encode(errors='backslashreplace').decode()
        assert row['labels'] == [ranked.label for ranked in prediction.classes]
        assert row['classes'] == [CLASSES[label] for label in row['labels']]
        assert row['scores'] == [ranked.score for ranked in prediction.classes]
        assert (row['error'] or '') == prediction.error.encode(errors='backslashreplace').decode()
    failed = [row['image'] for row in rows if row['error']]
    assert failed == ['images/3/empty.png', 'images/5/text.png', 'images/9/\\udcff.png']
    assert len({tuple(row['scores']) for row in rows}) > 300, 'or any order would pass'


class TestWorker:
    def test_an_exported_file(self, inside, workspace, tmp_path):
        (tmp_path / SETTINGS).touch()
        worker = _Worker(workspace, cfg=inside, weights='model.onnx', topk=1, num_threads=1)
        images = [image for image, _ in list_images(['images/3'])][:4]
        part = dict(path=str(tmp_path / PART), images=b'\0'.join(map(os.fsencode, images)))
        assert worker(part) == {'error': ''}
        rows = read_rows(tmp_path)
        wanted = Predictor(inside, 'model.onnx', topk=1).predict(images)
        assert [row['labels'] for row in rows] == [[prediction.classes[0].label] for prediction in wanted]
        assert count_rows(tmp_path / PART) == (4, 0)

    def test_it_keeps_to_its_threads(self, inside, workspace, tmp_path):
        (tmp_path / SETTINGS).touch()
        before = torch.get_num_threads()
        try:
            worker = _Worker(workspace, cfg=inside, weights='model.pth', num_threads=before + 1)
            worker(dict(path=str(tmp_path / PART), images=b'images/3/empty.png'))
            assert torch.get_num_threads() == before + 1
        finally:
            torch.set_num_threads(before)

    def test_what_goes_wrong_is_in_its_answer(self, inside, workspace, tmp_path):
        worker = _Worker(workspace, cfg=inside, weights='gone.pth')
        part = dict(path=str(tmp_path / PART), images=b'x.png')
        assert worker(part)['error'].endswith('is not on this machine; `out` must be on storage that all share')
        (tmp_path / SETTINGS).touch()
        assert 'gone.pth' in worker(part)['error']
        assert not (tmp_path / PART).exists()


class TestRefusals:
    def test_a_folder_with_other_predictions(self, inside, tmp_path):
        out = tmp_path / 'out'
        # nothing is left to predict, so Ray is not started
        note = ['images/3', out]
        (tmp_path / PART).touch()
        with pytest.raises(FileExistsError, match=r'holds Parquet files, and no settings\.json of `predict_many`'):
            predict_many(inside, 'model.pth', ['images/3'], tmp_path)
        with pytest.raises(ValueError, match='`workers` must be at most'):
            predict_many(inside, 'model.pth', ['images/3'], out, workers=1000)
        for weights, images, options, name in (
            ('model.onnx', note[0], {}, 'weights'),
            ('model.pth', 'images/4', {}, 'images, num_images'),
            ('model.pth', note[0], dict(topk=2), 'topk'),
            ('model.pth', note[0], dict(part_size=7), 'part_size'),
        ):
            with pytest.raises(FileExistsError, match=f'out holds predictions with other {name} '):
                predict_many(inside, weights, [images], out, **options)
        changed = load_config('config.py', ['test_dataloader.dataset.pipeline.1.scale=31'])
        with pytest.raises(FileExistsError, match='other config '):
            predict_many(changed, 'model.pth', ['images/3'], out)
        (out / SETTINGS).write_text('[]')
        with pytest.raises(FileExistsError, match='other settings '):
            predict_many(inside, 'model.pth', ['images/3'], out)

    def test_wrong_arguments(self, inside, tmp_path):
        for name in ('workers', 'topk', 'batch_size', 'part_size'):
            with pytest.raises(ValueError, match=f'`{name}` must be at least 1, got 0'):
                predict_many(inside, 'model.pth', ['images'], tmp_path, **{name: 0})
        assert not list(tmp_path.iterdir())
        with pytest.raises(ValueError, match=r'no Ray cluster runs on this machine; .* or leave out `cluster`'):
            predict_many(inside, 'model.pth', ['images'], tmp_path, cluster=True)

    def test_wrong_names_are_noticed_at_once(self, workspace):
        for args, message in (
            (['config.py', 'no.pth', 'images', '--out', 'x'], 'error: no.pth does not exist'),
            (['config.py', 'model.pth', 'no', '--out', 'x'], 'error: no does not exist'),
        ):
            done = run_tool('predict_many', *args, cwd=workspace, without=['torch', 'ray'])
            assert done.returncode == 1
            assert message in done.stderr

    def test_weights_of_another_model_are_named_before_ray_is_started(self, workspace, tmp_path):
        (tmp_path / 'bad.pth').write_text('no checkpoint')
        args = ['config.py', tmp_path / 'bad.pth', 'images', '--out', tmp_path / 'out']
        assert 'bad.pth' in fail_here('predict-many', *args, cwd=workspace)
        assert not (tmp_path / 'out').exists()
