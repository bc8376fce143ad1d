"""The soak: memory and files of a process that tests and predicts for long."""

import os

import pytest
from tool_runs import ROOT, run_tool

from studies.soak import Footprint, Growth, compare, measure, render, soak


def test_some_rounds_leave_no_file_open(tmp_path):
    # 4 images and few rounds: the first ones fill caches, so only `make soak` says something about the memory
    done = run_tool('soak', '--rounds', 3, '--images', 4, '--limit', 30, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (files,) = [line for line in done.stdout.splitlines() if 'open files' in line]
    assert files.split('|')[-2].strip() == '+0.0%'
    assert '3 rounds in ' in done.stdout
    assert 'test .onnx, predict .onnx' in done.stdout
    assert not any(tmp_path.iterdir())


def test_what_grows_is_found():
    kept = []
    footprints = soak({'keep': lambda: kept.append(bytearray(b'x' * 50_000_000))}, 0, 10)
    growth = compare(footprints)['memory, MB']
    assert growth.after - growth.before == pytest.approx(9 * 50e6, rel=0.2)
    with open(ROOT / 'README.md'):
        assert measure().files > footprints[-1].files


def test_first_rounds_do_not_count():
    footprints = [Footprint(100, 3, 1)] * 2 + [Footprint(200, 3, 1)] * 9 + [Footprint(210, 4, 1)] * 9
    growths = compare(footprints)
    assert [growth.share for growth in growths.values()] == pytest.approx([0.05, 1 / 3, 0])
    assert '+5.0%' in render(growths)


def test_pipes_are_no_files_on_disks():
    before = measure().files
    ends = os.pipe()
    assert measure().files == before
    for end in ends:
        os.close(end)


def test_growth_from_nothing():
    assert Growth(0, 0).share == 0
    assert Growth(0, 1).share == float('inf')
