"""A new format is one file: every command that has to do with exported files knows it then."""

import re

from tool_runs import ROOT, SMALL, run_python

# what a command line of a package with that file in it would be
MAIN = (
    'import sys; sys.path.insert(0, {tests!r}); import numbered_format; from mmrepvgg.commands.main import main; main()'
)


def run(*args, cwd):
    done = run_python('-c', MAIN.format(tests=str(ROOT / 'tests')), *args, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_format_in_one_file_is_in_every_command(workspace):
    assert '.numbered (numbered)' in run('export', '--help', cwd=workspace)
    report = run('export', SMALL, 'small.pth', 'net.numbered', cwd=workspace)
    assert re.search(r'net\.numbered: takes normalised float32 images \(N, 3, 32, 32\), gives 10 logits, fp32', report)
    output = run('test', SMALL, 'net.numbered', '--metrics', 'accuracy', cwd=workspace)
    assert float(re.search(r'^accuracy/top1: ([\d.]+)$', output, re.MULTILINE)[1]) >= 97
    images = sorted((workspace / 'data/digits/val/7').iterdir())[:4]
    lines = run('predict', SMALL, 'net.numbered', *images, '--topk', '1', cwd=workspace).splitlines()
    assert sum(': 7 ' in line for line in lines) >= 3

    done = run_python('-c', MAIN.format(tests=str(ROOT / 'tests')), 'export', SMALL, 'small.pth', 'other.numbered',
                      '--precision', 'fp16', cwd=workspace)  # fmt: skip
    assert done.returncode == 2
    assert 'the precision of numbered files must be one of fp32, got fp16' in done.stderr
