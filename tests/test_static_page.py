"""The page that runs an ONNX file in the browser: its steps, and its scores, are Python's."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import open_page
from PIL import Image
from sklearn.datasets import load_sample_images
from tool_runs import ROOT, SMALL, fail_here, succeed_here

from mmrepvgg import Predictor, load_config
from mmrepvgg.data.images import ImageReader
from mmrepvgg.data.plain_pipelines import describe_pipeline
from mmrepvgg.demo.steps import StepError, list_steps

WEB = ROOT / 'mmrepvgg/demo/web'

# The steps of ImageNet's recipes, at other sizes; and what resizes otherwise.
EDGE = "dict(type='ResizeEdge', scale=40, edge='short', backend='pillow'), dict(type='CenterCrop', crop_size=32)"
STEPS = {
    'pillow': EDGE,
    'bicubic': EDGE.replace("'pillow'", "'pillow', interpolation='bicubic'"),
    'opencv': EDGE.replace("'pillow'", "'cv2'"),
    'size': "dict(type='Resize', scale=(32, 32))",
    'enlarged': "dict(type='Resize', scale=(701, 650)), dict(type='CenterCrop', crop_size=(31, 32))",
    'half': "dict(type='Resize', scale=(320, 213)), dict(type='CenterCrop', crop_size=32)",
}
PIPELINE = """
_base_ = '{base}'
test_dataloader = dict(
    dataset=dict(pipeline=[dict(type='LoadImageFromFile'), {steps}, dict(type='PackInputs')])
)
"""
APPLY = """
import {{ readFileSync, writeFileSync }} from 'node:fs';
import {{ applySteps }} from '{module}';
const picture = {{ width: {width}, height: {height}, pixels: readFileSync('picture.raw') }};
writeFileSync('seen.raw', applySteps({steps}, picture).pixels);
"""


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory) -> Path:
    """A folder with images of many sizes and kinds, a config for each of STEPS, and a model with names as HTML."""
    folder = tmp_path_factory.mktemp('static')
    for name, steps in STEPS.items():
        (folder / f'{name}.py').write_text(PIPELINE.format(base=SMALL, steps=steps))
    for number, photo in enumerate(load_sample_images().images):
        Image.fromarray(photo).save(folder / f'wide{number}.png')
        Image.fromarray(photo.transpose(1, 0, 2)[:, 3:]).save(folder / f'high{number}.png')
        # the camera was turned
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(photo).save(folder / f'turned{number}.jpg', exif=exif)
    for digit in (3, 8):
        image = sorted((digits / f'data/digits/val/{digit}').glob('*.png'))[0]
        Image.open(image).convert('RGB').resize((61, 47)).save(folder / f'{digit}.png')
    Image.open(folder / '3.png').convert('L').save(folder / 'grey.png')
    content = torch.load(digits / 'small.pth', weights_only=False)
    content['meta']['dataset_meta']['classes'] = [f'<b>digit</b> {number}' for number in range(10)]
    torch.save(content, folder / 'named.pth')
    return folder


@pytest.fixture(scope='module')
def write(folder, pytestconfig):
    """A function that exports ``named.pth`` and writes its page. What npm fetched is kept for other runs."""
    for program in ('node', 'npm'):
        if shutil.which(program) is None:
            pytest.skip(f'{program} is not installed')

    @functools.cache
    def write(name: str, *options: object) -> Path:
        succeed_here('export', 'pillow.py', 'named.pth', f'{name}.onnx', *options, cwd=folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('npm_config_cache', str(pytestconfig.cache.mkdir('onnxruntime-web') / 'npm'))
            line = succeed_here('demo', f'{name}.onnx', '--static', name, cwd=folder)
        assert re.fullmatch(rf'{name}: 11 files, 1\d\.\d MB, for any web server\n', line)
        return folder / name

    return write


@pytest.fixture(scope='module')
def address(folder) -> Iterator[str]:
    """Where the plain web server of Python serves ``folder``."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.skipif(shutil.which('node') is None, reason='node is not installed')
@pytest.mark.parametrize('steps', STEPS)
def test_the_steps_are_pythons(steps, folder, tmp_path):
    cfg = load_config(str(folder / f'{steps}.py'))
    described = list_steps(describe_pipeline(cfg.test_dataloader.dataset.pipeline))['steps']
    for name in ('wide0.png', 'high0.png', '3.png'):
        photo = Image.open(folder / name).convert('RGBA')
        (tmp_path / 'picture.raw').write_bytes(photo.tobytes())
        module = WEB / 'steps.mjs'
        program = APPLY.format(module=module, width=photo.width, height=photo.height, steps=json.dumps(described))
        command = ['node', '--input-type=module', '-e', program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        expected = ImageReader(cfg)(folder / name)['inputs'].flip(0).permute(1, 2, 0).numpy()
        seen = np.frombuffer((tmp_path / 'seen.raw').read_bytes(), np.uint8).reshape(*expected.shape[:2], 4)
        # OpenCV rounds in several ways, by the CPU
        limit = 0 if steps in ('pillow', 'bicubic') else 1
        assert np.abs(seen[..., :3].astype(int) - expected).max() <= limit, name


# Float32 is added up in another order in WebAssembly.
@pytest.mark.parametrize(
    ('name', 'options'),
    [('plain', []), ('inside', ['--with-preprocess', '--softmax', '--no-dynamic-batch', '--batch-size', 3])],
)
def test_classes_and_scores_are_pythons(name, options, browser, write, folder, address):
    write(name, *options)
    images = sorted([*folder.glob('*.png'), *folder.glob('*.jpg')])
    expected = Predictor(load_config(str(folder / 'pillow.py')), folder / f'{name}.onnx').predict(images)
    assert len({found.classes[0].label for found in expected}) > 3, 'images differ'
    with open_page(browser, f'{address}/{name}/') as page:
        page.locator('#images:enabled').wait_for()
        page.set_input_files('#images', images)
        page.locator('article').nth(len(images) - 1).wait_for()
        for found in expected:
            card = page.locator('article').filter(has=page.get_by_role('heading', name=found.image.name, exact=True))
            rows = card.locator('tbody tr')
            assert rows.locator('td:first-child').all_inner_texts() == [each.name for each in found.classes]
            scores = [float(cell.get_attribute('data-score')) for cell in rows.locator('td:last-child').all()]
            assert scores == pytest.approx([each.score for each in found.classes], abs=2e-5)
            assert re.fullmatch(r'\d+\.\d\d ms', card.locator('.time').inner_text())
        assert not page.locator('b').count(), 'a name of a class became a part of the page'
        assert page.title() == f'{name}.onnx'


def test_other_files_are_named_and_the_rest_is_shown(browser, write, folder, address):
    write('plain')
    (folder / 'text.png').write_text('no image')
    clear = Image.open(folder / '3.png').convert('RGBA')
    clear.putalpha(128)
    clear.save(folder / 'clear.webp')
    with open_page(browser, f'{address}/plain/', color_scheme='dark', viewport=dict(width=360, height=740)) as page:
        page.locator('#images:enabled').wait_for()
        assert page.locator('#status').inner_text() == 'The network is ready.'
        page.keyboard.press('Tab')
        assert page.evaluate('document.activeElement.id') == 'images'
        page.set_input_files('#images', [folder / name for name in ('text.png', '3.png', 'clear.webp')])
        page.locator('article').nth(2).wait_for()
        # the newest is the first
        assert page.locator('h2').all_inner_texts() == ['clear.webp', '3.png', 'text.png']
        assert page.locator('.error:visible').all_inner_texts() == ['this browser can not read it as an image']
        assert page.locator('.transparent:visible').count() == 1
        assert page.locator('#status').inner_text().startswith('clear.webp: <b>digit</b>')
        assert page.evaluate('document.documentElement.scrollWidth') <= 360
        assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(18, 18, 18)'
    inline = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'bad = 1'}))"
    blocked = r"violates the following Content Security Policy directive 'script-src 'self' 'wasm-unsafe-eval''"
    with pytest.raises(AssertionError, match=blocked), open_page(browser, f'{address}/plain/') as page:
        page.evaluate(inline)


def test_what_the_page_can_not_do(folder, tmp_path, monkeypatch):
    for steps, reason in (
        (EDGE.replace("'short'", "'long'"), 'the page can resize the short edge, or to a size, by pillow bilinear, '),
        (EDGE.replace("'pillow'", "'cv2', interpolation='area'"), "'interpolation': 'area'"),
        ("dict(type='Resize', scale=32, keep_ratio=True)", "'keep_ratio': True"),
    ):
        (tmp_path / 'own.py').write_text(PIPELINE.format(base=SMALL, steps=steps))
        cfg = load_config(str(tmp_path / 'own.py'))
        with pytest.raises(StepError, match=re.escape(reason)):
            list_steps(describe_pipeline(cfg.test_dataloader.dataset.pipeline))
    with pytest.raises(StepError, match="the page reads images in colour, and the pipeline as 'grayscale'"):
        list_steps((dict(type='LoadImageFromFile', color_type='grayscale'),))

    succeed_here('export', 'pillow.py', 'named.pth', 'net.torchscript', cwd=folder)
    line = fail_here('demo', 'net.torchscript', '--static', tmp_path / 'site', cwd=folder)
    assert line == 'mmrepvgg demo: error: the page runs ONNX files (.onnx), got net.torchscript'
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/notes.txt').write_text('keep')
    succeed_here('export', 'pillow.py', 'named.pth', 'net.onnx', cwd=folder)
    line = fail_here('demo', 'net.onnx', '--static', tmp_path / 'mine', cwd=folder)
    assert 'model.json in it; move it away or give another name' in line
    monkeypatch.setenv('PATH', str(tmp_path))
    line = fail_here('demo', 'net.onnx', '--static', tmp_path / 'site', cwd=folder)
    assert line.endswith('the page needs onnxruntime-web, which npm fetches; install Node.js, which brings npm')
    (tmp_path / 'npm').write_text('#!/bin/sh\necho "npm error code EINTEGRITY" >&2\nexit 1\n')
    (tmp_path / 'npm').chmod(0o755)
    line = fail_here('demo', 'net.onnx', '--static', tmp_path / 'site', cwd=folder)
    assert 'npm could not fetch onnxruntime-web: npm error code EINTEGRITY' in line
    assert not (tmp_path / 'site').exists()


def test_the_lock_file_has_a_hash_for_each_package_and_no_host():
    lock = json.loads((WEB / 'package-lock.json').read_text())
    packages = [package for path, package in lock['packages'].items() if path]
    assert len(packages) > 5
    assert all(package['integrity'].startswith('sha512-') and 'resolved' not in package for package in packages)
    assert lock['packages']['']['dependencies'] == json.loads((WEB / 'package.json').read_text())['dependencies']
