"""A new format is one file: every command that has to do with exported files knows it then."""

import importlib
import re
import sys

import pytest
from tool_runs import SMALL, run_command, succeed_here

from mmrepvgg.runtimes.table import FORMATS


@pytest.fixture
def _numbered_format():
    """What importing a package with that file in it would do."""
    formats = list(FORMATS)
    importlib.import_module('numbered_format')
    yield
    FORMATS[:] = formats
    del sys.modules['numbered_format']


@pytest.mark.usefixtures('_numbered_format')
def test_a_format_in_one_file_is_in_every_command(workspace):
    assert '.numbered (numbered)' in ' '.join(succeed_here('export', '--help', cwd=workspace).split())
    report = succeed_here('export', SMALL, 'small.pth', 'net.numbered', cwd=workspace)
    assert re.search(r'net\.numbered: takes normalised float32 images \(N, 3, 32, 32\), gives 10 logits, fp32', report)
    output = succeed_here('test', SMALL, 'net.numbered', '--metrics', 'accuracy', cwd=workspace)
    assert float(re.search(r'^accuracy/top1: ([\d.]+)$', output, re.MULTILINE)[1]) >= 97
    images = sorted((workspace / 'data/digits/val/7').iterdir())[:4]
    lines = succeed_here('predict', SMALL, 'net.numbered', *images, '--topk', '1', cwd=workspace).splitlines()
    assert sum(': 7 ' in line for line in lines) >= 3

    done = run_command('export', SMALL, 'small.pth', 'other.numbered', '--precision', 'fp16', cwd=workspace)
    assert done.returncode == 2
    assert 'the precision of numbered files must be one of fp32, got fp16' in done.stderr


def test_without_the_file_there_is_no_such_format(workspace):
    done = run_command('export', SMALL, 'small.pth', 'net.numbered', cwd=workspace)
    assert done.returncode == 2
    assert re.search(r"must end in \.onnx, .*\.safetensors.*, got 'net\.numbered'", done.stderr)
