"""The programs of examples/cpp and examples/boards that can run here give what ``mmrepvgg predict`` gives."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_sample_images
from tool_runs import ROOT, SMALL, run_python, succeed_here

from mmrepvgg import Predictor, load_config

CPP, OPENCV, WEB = ROOT / 'examples/cpp', ROOT / 'examples/boards/opencv', ROOT / 'examples/boards/web'

# the steps of ImageNet's recipes, at other sizes
PIPELINE = """
_base_ = '{base}'
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale=40, edge='short', backend='pillow'),
            dict(type='CenterCrop', crop_size=32),
            dict(type='PackInputs'),
        ]
    )
)
"""


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory):
    """A folder with ``config.py``, ``labels.txt``, images, and ``predictions.json``, what predict says of them."""
    folder = tmp_path_factory.mktemp('examples')
    (folder / 'config.py').write_text(PIPELINE.format(base=SMALL))
    (folder / 'labels.txt').write_text(''.join(f'digit {number}\n' for number in range(10)))
    for number, photo in enumerate(load_sample_images().images):
        # the short edge is another one, and the crop is in the middle of an odd number of pixels
        cv2.imwrite(str(folder / f'wide{number}.png'), photo[..., ::-1])
        cv2.imwrite(str(folder / f'high{number}.png'), photo.transpose(1, 0, 2)[:, 3:, ::-1])
    for path in sorted(digits.glob('data/digits/val/*/*.png'))[::40]:
        cv2.imwrite(str(folder / f'{path.parent.name}.png'), cv2.resize(cv2.imread(str(path)), (61, 47)))
    images = sorted(folder.glob('*.png'))
    succeed_here('predict', 'config.py', digits / 'small.pth', *images, '--out', 'predictions.json', cwd=folder)
    return folder


@pytest.fixture(scope='module')
def classify(pytestconfig):
    """A function that runs the C++ program, which is built once for all runs of the tests."""
    for program in ('c++', 'cmake'):
        if shutil.which(program) is None:
            pytest.skip(f'{program} is not installed')
    folder = pytestconfig.cache.mkdir('ncnn-1.0.20261020')
    if not (folder / 'source').exists():
        execute(sys.executable, CPP / 'get_ncnn.py', folder / 'source')
    # for any x86-64 alone: code for each kind of CPU would take minutes
    options = ['-DNCNN_RUNTIME_CPU=OFF', '-DNCNN_AVX=OFF']
    execute('cmake', '-S', CPP, '-B', folder / 'build', f'-DNCNN_SOURCE={folder / "source"}', *options)
    execute('cmake', '--build', folder / 'build', '-j2')
    return lambda *args: run(folder / 'build/classify', *args)


@pytest.fixture(scope='module')
def param(folder, digits):
    options = ['--with-preprocess', '--softmax']
    succeed_here('export', 'config.py', digits / 'small.pth', 'net.param', *options, cwd=folder)
    return folder / 'net.param'


def test_cpp(classify, param, folder):
    check_predictions(classify(param, folder / 'labels.txt', 40, 32, *sorted(folder.glob('*.png'))), folder)


def test_cpp_int8(classify, folder, digits):
    model = folder / 'int8.param'
    options = ['--with-preprocess', '--softmax', '--num-samples', 60]
    succeed_here('quantize', SMALL, digits / 'small.pth', model, *options, cwd=digits)
    images = sorted(folder.glob('*.png'))
    done = classify(model, folder / 'labels.txt', 40, 32, *images)
    assert done.returncode == 0, done.stderr
    best = [line.partition(': ')[2].split('; ')[0].rsplit(' ', 1) for line in done.stdout.splitlines()]
    predictions = Predictor(load_config(str(folder / 'config.py')), model, topk=1).predict(images)
    assert [name for name, _ in best] == [f'digit {found.classes[0].label}' for found in predictions]
    # CPUs round in other places
    expected = [found.classes[0].score for found in predictions]
    np.testing.assert_allclose([float(score) for _, score in best], expected, rtol=0, atol=0.01)


def test_cpp_says_what_is_wrong(classify, param, folder):
    labels, image = folder / 'labels.txt', folder / '3.png'
    done = classify(param, labels, 40, 32, folder / 'config.py', image)
    assert (done.returncode, done.stderr) == (1, f"classify: error: {folder}/config.py can't be read\n")
    assert done.stdout.startswith(f'{image}: digit ')

    (folder / 'short.txt').write_text('digit 0\n')
    done = classify(param, folder / 'short.txt', 40, 32, image)
    assert done.returncode == 1
    assert done.stderr.endswith('short.txt must have a line for each of the classes\n')

    done = classify(folder / 'nowhere.param', labels, 40, 32, image)
    assert done.stderr.endswith("nowhere.param can't be loaded\n")
    for arguments in ([param, labels, 31, 32, image], [param, labels, 40, 32], []):
        done = classify(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith('usage: classify ')


@pytest.mark.parametrize('opset', [11, 17, 18])
def test_opencv(opset, folder, digits):
    options = ['--softmax', '--opset', opset]
    succeed_here('export', 'config.py', digits / 'small.pth', 'net.onnx', *options, cwd=folder)
    images = sorted(folder.glob('*.png'))
    check_predictions(
        run_python(OPENCV / 'classify.py', folder / 'net.onnx', folder / 'labels.txt', 40, 32, *images), folder
    )


def test_onnxruntime_web(pytestconfig, monkeypatch, folder, digits):
    for program in ('node', 'npm'):
        if shutil.which(program) is None:
            pytest.skip(f'{program} is not installed')
    monkeypatch.setenv('npm_config_cache', str(pytestconfig.cache.mkdir('onnxruntime-web') / 'npm'))
    model, inputs, classes = folder / 'web.onnx', folder / 'inputs', folder / 'classes.csv'
    succeed_here('export', SMALL, digits / 'small.pth', model, '--with-preprocess', '--softmax', cwd=digits)
    succeed_here('demo', model, '--static', folder / 'site', cwd=digits)
    succeed_here('export-inputs', SMALL, inputs, '--dtype', 'uint8', '--format', 'npy', cwd=digits)
    execute('node', WEB / 'run.mjs', folder / 'site', inputs, classes)

    report = succeed_here('score-outputs', inputs, classes, cwd=digits)
    assert '360 images listed, 360 scored' in report
    session = onnxruntime.InferenceSession(model)
    for line in classes.read_text().splitlines():
        name, *best = line.split(',')
        (expected,) = session.run(None, {'images': np.load(inputs / f'inputs/{name}.npy')})[0]
        labels, scores = zip(*(text.split(':') for text in best), strict=True)
        assert [int(label) for label in labels] == np.argsort(-expected)[:5].tolist()
        np.testing.assert_allclose(np.float32(scores), np.sort(expected)[:-6:-1], rtol=0, atol=2e-5)


def check_predictions(done, folder):
    expected = json.loads((folder / 'predictions.json').read_text())
    assert len({entry['predictions'][0]['label'] for entry in expected}) > 4, 'images differ'
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected) == 13
    for line, entry in zip(lines, expected, strict=True):
        image, _, classes = line.partition(': ')
        assert image == entry['image']
        names, scores = zip(*(text.rsplit(' ', 1) for text in classes.split('; ')), strict=True)
        assert list(names) == [f'digit {found["label"]}' for found in entry['predictions']]
        best = [found['score'] for found in entry['predictions']]
        np.testing.assert_allclose(np.float32(scores), best, rtol=0, atol=2e-5)


def execute(*command):
    done = run(*command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def run(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=1200)
