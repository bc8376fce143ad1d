"""The local page of ``mmrepvgg demo``: a real server, and a real browser that drops images on it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from browser import open_page
from PIL import Image
from tool_runs import ROOT, SMALL, fail_here, run_command, succeed_here

from mmrepvgg import Predictor, load_config, load_exported
from mmrepvgg.demo.answers import examine
from mmrepvgg.demo.forms import load_forms

# Names that another page would run, or show as bold, a link, a picture or a formula.
NAMES = [
    '<b>nought</b>', '**one**', '[two](https://example.com)', '<img src=https://example.com/x onerror=alert(1)>',
    '# four', '$five$', ':red[six]', '`seven`', 'eight\nlines', '&lt;nine',
]  # fmt: skip

# Notes each look-up of a name, and each connection to another machine, of a Python process.
WATCH = """
import os, sys
def note(event, args):
    if event == 'socket.getaddrinfo' and args[0] not in ('127.0.0.1', None):
        print('looked up', args[0], file=sys.stderr, flush=True)
    if event in ('socket.connect', 'socket.sendto') and args[1][0] not in ('127.0.0.1', '/'):
        print('connected to', args[1], file=sys.stderr, flush=True)
sys.addaudithook(note)
"""


@pytest.fixture(scope='module')
def models(digits, tmp_path_factory) -> Path:
    """A folder with ``named.pth``, a trained checkpoint whose classes have NAMES, ``net.onnx`` of it, and ``3.png``."""
    folder = tmp_path_factory.mktemp('demo')
    content = torch.load(digits / 'small.pth', weights_only=False)
    content['meta']['dataset_meta']['classes'] = NAMES
    torch.save(content, folder / 'named.pth')
    succeed_here('export', SMALL, folder / 'named.pth', folder / 'net.onnx', cwd=digits)
    image = sorted((digits / 'data/digits/val/3').glob('*.png'))[0]
    # another size than the network's
    Image.open(image).resize((61, 47)).save(folder / '3.png')
    (folder / 'broken.png').write_bytes((folder / '3.png').read_bytes()[:60])
    return folder


@contextmanager
def serving(folder: Path, *args: object, **env: str) -> Iterator[SimpleNamespace]:
    """The server as a user starts it: its process, and the address that it prints."""
    command = [sys.executable, '-m', 'mmrepvgg', 'demo', *map(str, args), '--port', '0']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), **env}
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, cwd=folder, env=environment, **options)
    guard = threading.Timer(120, process.kill)  # a server that never answers
    guard.start()
    try:
        yield SimpleNamespace(process=process, address=process.stdout.readline().strip())
    finally:
        guard.cancel()
        process.kill()
        process.communicate()


@pytest.fixture(scope='module')
def server(models, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A server of ``named.pth`` and ``net.onnx`` that notes what it asks of other machines on stderr."""
    watch = tmp_path_factory.mktemp('watch')
    (watch / 'sitecustomize.py').write_text(WATCH)
    # a folder without settings of the user
    home = tmp_path_factory.mktemp('home')
    with serving(models, 'named.pth', 'net.onnx', PYTHONPATH=f'{watch}:{ROOT}', HOME=str(home)) as server:
        yield server


def test_classes_scores_and_forms(browser, models, server):
    with open_page(browser, server.address, viewport=dict(width=1000, height=900)) as page:
        page.set_input_files('input[type=file]', [models / name for name in ('3.png', 'broken.png', 'named.pth')])
        page.locator('.card').nth(2).wait_for()
        cards = page.locator('.card')
        assert cards.locator('h2').all_inner_texts() == ['3.png', 'broken.png', 'named.pth']
        sections = cards.nth(0).locator('section')
        assert sections.locator('h3').all_inner_texts() == ['train form', 'deploy form', 'ONNX, fp32']
        assert sections.locator('.file').all_inner_texts() == ['named.pth', 'named.pth', 'net.onnx']

        (expected,) = Predictor(load_config(SMALL), models / 'named.pth').predict([models / '3.png'])
        assert expected.classes[0].label == 3
        for section in sections.all():
            rows = section.locator('tbody tr')
            names = [name.replace('\n', ' ') for name in rows.locator('.name').all_text_contents()]
            assert names == [found.name.replace('\n', ' ') for found in expected.classes]
            scores = [float(score) for score in rows.locator('td:last-child').all_inner_texts()]
            assert scores == pytest.approx([found.score for found in expected.classes], abs=1e-4)
            assert float(section.locator('.time').inner_text().removesuffix(' ms')) > 0
            assert '1 thread' in section.inner_text()
        # the last feature map of 32 x 32 pixels is one
        shown = 'Evidence at stage_2: bright parts speak for the first class'
        assert sections.locator('.note').all_inner_texts()[:2] == [shown, shown]
        differences = [float(text) for text in sections.locator('.difference strong').all_inner_texts()]
        assert len(differences) == 2
        assert max(differences) < 1e-4

        errors = cards.locator('.error').all_inner_texts()
        assert len(errors) == 2
        assert all(error.startswith('This image can not be read: ') and '\n' not in error for error in errors)
        # nothing of a name became a part of the page
        assert not cards.locator('b, a, h1, code, tbody img, .katex').count()


def test_the_page_on_a_phone_and_by_keyboard(browser, models, server):
    with open_page(browser, server.address, viewport=dict(width=390, height=800), color_scheme='dark') as page:
        page.set_input_files('input[type=file]', models / '3.png')
        page.locator('.card').wait_for()
        assert page.evaluate('document.documentElement.scrollWidth') <= 390
        boxes = [section.bounding_box() for section in page.locator('.card section').all()]
        assert len({box['x'] for box in boxes}) == 1, 'one below the other'
        background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert max(int(value) for value in re.findall(r'\d+', background)[:3]) < 60
        for _ in range(20):
            page.keyboard.press('Tab')
            if page.evaluate("document.activeElement.closest('[data-testid=stFileUploader]') !== null"):
                break
        else:
            pytest.fail('the button for images is not reached by Tab')
        assert all(image.get_attribute('alt') for image in page.locator('.card img').all())


def test_other_pages_are_refused_without_a_look_elsewhere(models, server):
    host, port = server.address.removeprefix('http://').strip('/').split(':')
    handshake = (
        f'GET /_stcore/stream HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: https://example.com\r\nUpgrade: websocket\r\n'
        'Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n'
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(handshake.encode())
        assert b' 403 ' in connection.recv(100)
    # an upload without the token of a visitor
    request = urllib.request.Request(f'{server.address}_stcore/upload_file/a/b', b'x', method='PUT')
    with pytest.raises(urllib.error.HTTPError, match='403'):
        urllib.request.urlopen(request, timeout=30)


def test_sigterm_ends_it_and_it_was_quiet(server):
    # the last of its tests
    server.process.send_signal(signal.SIGTERM)
    stdout, stderr = server.process.communicate(timeout=60)
    assert (server.process.returncode, stdout, stderr) == (0, '', '')


def test_ctrl_c_ends_it_with_visitors_from_everywhere(browser, models):
    with serving(models, 'net.onnx', '--host', '0.0.0.0') as server:
        name, port = re.fullmatch(r'http://(.*):(\d+)/', server.address).groups()
        assert name == socket.gethostname()
        # not by open_page: a page whose server ends logs that
        with closing(browser.new_page()) as page:
            page.goto(f'http://127.0.0.1:{port}/')
            page.locator('input[type=file]').wait_for(state='attached')
            line = fail_here('demo', 'net.onnx', '--port', port, cwd=models)
            assert (
                f'no page can be served at port {port} of 127.0.0.1 (Address already in use); give another --port, '
                in line
            )
            assert line.endswith('0 for any that is free, or another --host')
            server.process.send_signal(signal.SIGINT)
            stdout, stderr = server.process.communicate(timeout=60)
        assert (server.process.returncode, stdout) == (0, '')
        assert stderr == (
            'warning: everyone who can reach this machine at 0.0.0.0 can use the page: it has no password and no '
            'encryption\n'
        )


def test_files_without_a_config_name_what_to_add(models, digits, tmp_path):
    weights = torch.load(digits / 'small.pth', weights_only=False)
    torch.save(weights['state_dict'], tmp_path / 'bare.pth')
    assert fail_here('demo', 'bare.pth', cwd=tmp_path) == (
        'mmrepvgg demo: error: bare.pth does not carry the config of its training (or carries one without model or '
        'test_dataloader); add --config'
    )
    (tmp_path / 'own.py').write_text(
        f"_base_ = '{SMALL}'\ntest_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), "
        "dict(type='Resize', scale=32), dict(type='Rotate', angle=0.0, prob=1.0), dict(type='PackInputs')]))\n"
    )
    succeed_here('export', 'own.py', models / 'named.pth', 'own.onnx', cwd=tmp_path)
    assert load_exported(tmp_path / 'own.onnx').metadata.pipeline == ()
    line = fail_here('demo', 'own.onnx', cwd=tmp_path)
    assert line.endswith('or from a test pipeline with steps of its own; add --config')
    forms = load_forms([tmp_path / 'own.onnx', tmp_path / 'bare.pth'], load_config(str(tmp_path / 'own.py')))
    assert [form.name for form in forms] == ['ONNX, fp32', 'train form', 'deploy form']


@pytest.mark.parametrize(
    ('old', 'new', 'reason'),
    [
        ("type='LinearClsHead'", "type='os.system'", r'are not taken from a file \(os\.system\)'),
        ("type='GlobalAveragePooling'", "_scope_='x'", r'are not taken from a file \(_scope_\)'),
        ("type='Resize'", "type='subprocess.run'", 'in its test pipeline or its normalisation'),
        ('num_classes=10', 'num_classes=10 ** 9', 'does not carry the config'),
        ('num_classes=10', 'num_classes=1000000000', 'head.fc.weight'),
        ('model = dict', 'model = __import__("os").system("touch made") or dict', 'does not carry the config'),
        ('model = dict', 'model = (' * 500 + 'dict', 'does not carry the config'),
    ],
)
def test_a_config_in_a_checkpoint_is_data(old, new, reason, digits, tmp_path):
    content = torch.load(digits / 'small.pth', weights_only=False)
    assert old in content['meta']['cfg']
    content['meta']['cfg'] = content['meta']['cfg'].replace(old, new)
    torch.save(content, tmp_path / 'hostile.pth')
    assert re.search(reason, fail_here('demo', 'hostile.pth', cwd=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['hostile.pth']


def test_both_forms_of_large_maps(randomise, small_cfg, small_source, export_once, tmp_path):
    """The maps of a checkpoint, and none of a file; differences in probabilities where a file gives only these."""
    cfg = small_cfg
    cfg.test_dataloader.dataset.pipeline[1].scale = 128
    softmax = export_once(cfg, '.torchscript', softmax=True, dynamic_size=True)[1]
    path = tmp_path / 'photo.png'
    Image.radial_gradient('L').convert('RGB').save(path)
    answers = examine(load_forms([small_source, softmax], cfg), path)
    shown = 'Class activation map: bright parts speak for the first class'
    assert [answer.note for answer in answers] == [shown, shown, 'No class activation map: this file gives scores only']
    assert answers[0].view.size == answers[2].view.size
    assert answers[0].view.tobytes() != answers[2].view.tobytes()
    assert [answer.difference is None for answer in answers] == [True, False, False]
    assert max(answer.difference.largest for answer in answers[1:]) < 1e-5


def test_without_streamlit(models, monkeypatch):
    monkeypatch.setattr('mmrepvgg.runtimes.format.find_spec', lambda name: None if name == 'streamlit' else True)
    assert fail_here('demo', 'named.pth', cwd=models) == (
        'mmrepvgg demo: error: local pages need streamlit, not installed here: pip install "mmrepvgg[demo]"'
    )


def test_usage(models):
    for args, reason in (
        (['net.onnx', '--port', '70000'], "argument --port: must be a whole number from 0 to 65535, got '70000'"),
        (['net.onnx', 'named.pth', '--static', 'site'], '--static takes one ONNX file, got 2 files'),
    ):
        done = run_command('demo', *args, cwd=models)
        assert done.returncode == 2
        assert reason in done.stderr
    assert fail_here('demo', 'nowhere.pth', cwd=models).endswith('nowhere.pth does not exist')
