"""Several processes, started by torchrun on this machine, against one.

Each launch runs all of tests/distributed_run.py, since a process imports for seconds.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from distributed_run import STEPS, list_test, train_frozen
from tool_runs import ROOT, SMALL, succeed_here

from mmrepvgg import Predictor, export_model, load_config, reparameterize_checkpoint

EXACT = dict(rtol=0, atol=1e-10)


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory):
    """What one process gives: three epochs, two tests, and the predictions of nine files, of which two are damaged."""
    folder = tmp_path_factory.mktemp('distributed')
    for name in ('data', 'small.pth'):
        (folder / name).symlink_to(digits / name)
    (folder / 'photos').mkdir()
    for image in sorted((folder / 'data/digits/val').glob('*/*'))[::50]:
        shutil.copy(image, folder / 'photos')
    (folder / 'photos/empty.png').touch()
    (folder / 'photos/text.png').write_text('no image')
    cfg = load_config(SMALL)
    export_model(cfg, folder / 'small.pth', folder / 'small.onnx')
    before = Path.cwd()
    os.chdir(folder)
    try:
        train_frozen('from_1', 1, epochs=3, custom_hooks=[dict(type='KeepGradientsHook')])
    finally:
        os.chdir(before)
    for weights in ('small.pth', 'small.onnx'):
        succeed_here(*list_test(weights, f'{weights}_1.json', 'none'), cwd=folder)
    return folder


def launch(folder, num, end):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(num)]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / 'tests')))
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths}
    done = subprocess.run(
        [*command, ROOT / 'tests/distributed_run.py', end],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (folder / f'done_{num}').exists(), done.stdout[-3000:] + done.stderr[-5000:]
    done.seconds = time.time() - float((folder / 'end_begins').read_text())
    return done


@pytest.fixture(scope='module')
def two(folder):
    return launch(folder, 2, 'killed')


@pytest.fixture(scope='module')
def three(folder):
    return launch(folder, 3, 'raises')


@pytest.fixture(params=[2, 3])
def num(request):
    """The number of processes, all of which have ended."""
    request.getfixturevalue({2: 'two', 3: 'three'}[request.param])
    return request.param


def read(path):
    return torch.load(path, weights_only=False)


def assert_same_weights(path, expected):
    found, wanted = read(path), read(expected)
    assert found['state_dict'].keys() == wanted['state_dict'].keys()
    for key, value in wanted['state_dict'].items():
        torch.testing.assert_close(found['state_dict'][key], value, **EXACT, msg=key)
    assert (found['meta']['epoch'], found['meta']['iter']) == (wanted['meta']['epoch'], wanted['meta']['iter'])


class TestTraining:
    def test_gradients_and_weights_are_those_of_one_process(self, folder, num):
        one = read(folder / 'from_1/gradients_0.pth')[:STEPS]
        assert one[0]['head.fc.weight'].dtype == torch.float64
        for rank in range(num):
            several = read(folder / f'from_{num}/gradients_{rank}.pth')
            for found, expected in zip(several, one, strict=True):
                assert found.keys() == expected.keys()
                for name, gradient in expected.items():
                    torch.testing.assert_close(found[name], gradient, **EXACT, msg=name)
        assert_same_weights(folder / f'from_{num}/epoch_1.pth', folder / 'from_1/epoch_1.pth')
        start, end = (
            read(folder / name)['state_dict']['head.fc.weight'] for name in ('small.pth', 'from_1/epoch_1.pth')
        )
        assert (start - end).abs().max() > 1e-3, 'or any training would pass'

    def test_a_training_goes_on_with_another_number_of_processes(self, folder, two, monkeypatch):
        assert_same_weights(folder / 'resumed_2/epoch_2.pth', folder / 'from_1/epoch_2.pth')
        monkeypatch.chdir(folder)
        train_frozen('resumed_1', 1, epochs=3, resume='resumed_2/epoch_2.pth')
        assert_same_weights(folder / 'resumed_1/epoch_3.pth', folder / 'from_1/epoch_3.pth')

    def test_all_processes_have_what_the_checkpoint_holds(self, folder, num):
        saved = read(folder / f'free_{num}/epoch_1.pth')['state_dict']
        name = 'backbone.stem.branch_3x3.norm.running_mean'
        assert not torch.equal(saved[name], read(folder / 'small.pth')['state_dict'][name].double())
        for rank in range(num):
            for key, value in read(folder / f'free_{num}/weights_{rank}.pth').items():
                assert torch.equal(value, saved[key]), (rank, key)

    def test_sharded_training(self, folder, two):
        assert_same_weights(folder / 'sharded/epoch_1.pth', folder / 'from_1/epoch_1.pth')
        # the optimizer's state was shared out again
        assert_same_weights(folder / 'sharded/epoch_2.pth', folder / 'from_1/epoch_2.pth')
        reparameterize_checkpoint(load_config(SMALL), folder / 'sharded/epoch_2.pth', folder / 'sharded.pth')

    @pytest.mark.parametrize(('stopped', 'whole'), [('stopped', 'from_2'), ('stopped_sharded', 'sharded')])
    def test_a_signal_to_one_process_stops_all_in_one_step(self, folder, two, stopped, whole):
        for rank in range(2):
            assert (folder / stopped / f'stop_{rank}').read_text() == '143 3'
        assert_same_weights(folder / stopped / 'epoch_1.pth', folder / whole / 'epoch_1.pth')
        assert not (folder / stopped / 'interrupted.pth').exists()


class TestInference:
    @pytest.mark.parametrize('weights', ['small.pth', 'small.onnx'])
    def test_every_image_is_tested_once(self, folder, num, weights):
        one, several = (json.loads((folder / f'{weights}_{n}.json').read_text()) for n in (1, num))
        assert several['metrics'] == one['metrics']
        assert len(one['predictions']) == 31
        for found, expected in zip(several['predictions'], one['predictions'], strict=True):
            assert found.pop('score') == pytest.approx(expected['score'], abs=1e-5)
            assert found == {key: value for key, value in expected.items() if key != 'score'}

    def test_every_image_is_predicted_once(self, folder, num):
        found = json.loads((folder / f'predictions_{num}.json').read_text())
        images = sorted((folder / 'photos').iterdir())
        expected = Predictor(load_config(SMALL), folder / 'small.onnx').predict(images)
        assert [folder / prediction['image'] for prediction in found] == images
        for prediction, other in zip(found, expected, strict=True):
            assert prediction.get('error', '') == other.error.replace(str(other.image), f'photos/{other.image.name}')
            if not other.error:
                assert prediction['predictions'][0]['label'] == other.classes[0].label
                assert prediction['predictions'][0]['score'] == pytest.approx(other.classes[0].score, abs=1e-5)
        pictures = sorted(path.stem for path in (folder / f'pictures_{num}').iterdir())
        assert pictures == [image.stem for image in images if image.stem not in ('empty', 'text')]

    def test_the_main_process_alone_reports(self, folder, two):
        lines = two.stdout.splitlines()
        assert sum(line.startswith('accuracy/top1: ') for line in lines) == 2  # of two weights
        assert sum(line.startswith('trained: ') for line in lines) == 1
        assert 'Epoch(val) [1][1/1]' in two.stderr
        assert lines.count('predictions_2.json: 8 images predicted, 2 unreadable') == 1
        assert lines.count('pictures_2: 8 annotated pictures') == 1
        assert two.stderr.count('2 of 10 images could not be read') == 1
        assert 'Grad strides do not match' not in two.stderr  # DDP, of a model that was laid out after it was wrapped


class TestEnds:
    def test_a_process_that_is_killed_ends_all(self, two):
        assert two.returncode == 1
        assert two.seconds < 60
        assert 'SIGKILL' in two.stderr

    def test_a_process_that_fails_ends_all(self, three):
        assert three.returncode == 1
        assert three.seconds < 60
        assert 'rank 1 has no memory left' in three.stderr
