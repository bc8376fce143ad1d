"""The arithmetic of docs/scaling.md."""

import argparse

import pytest
from tool_runs import ROOT, run_tool

from studies import scaling
from studies.scaling import IMAGES, Model, measure_model, render, render_sizes, ring_bytes, step_seconds, tree_latency


def parse(*args):
    parser = argparse.ArgumentParser()
    scaling.add_arguments(parser)
    return parser.parse_args(args)


def test_counts_are_the_models_own():
    model = measure_model('A0')
    # 22 blocks, 17 of which have an identity: a stem and 1 + 1 + 1 + 1 first blocks have none
    assert (model.params, model.macs, model.norms) == (9108968, 1512581120, 2 * 22 + 17)
    assert (model.gradient_bytes, model.checkpoint_bytes) == (36435872, 72871744)
    assert model.speed(1.512581120 * 6) == pytest.approx(1000)


def test_times():
    assert ring_bytes(100, 2) == 100
    assert ring_bytes(100, 1000) == pytest.approx(199.8)
    assert step_seconds(0.3, 0.2) == pytest.approx(0.3), 'the exchange is hidden by the backward pass'
    assert step_seconds(0.3, 0.5) == pytest.approx(0.6)
    assert (tree_latency(2, 1.0), tree_latency(1000, 1.0)) == (2, 20)


def test_what_grows():
    model = Model('A', params=10 * 2**20, macs=0, norms=7)  # 40 MiB of gradients: two buckets
    row = render_sizes(model, 1000, 32, [64], hop=1e-3, disk=1e6, decoded=300).splitlines()[-1]
    epoch = IMAGES / 64000
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[:7] == ['64', '2048', '0.8', '625', '20', '64', '6.91']
    assert cells[7:] == ['4', '24.00', '168.00', f'{8 * 10 * 2**20 / 1e6 / epoch:.1%}']


def test_the_page_has_the_tables_of_the_tool():
    page = (ROOT / 'docs/scaling.md').read_text()
    measured = '--archs A0 --batch-size 16 --speed 62.4 --gpus 2 8 64 --networks 1 10'
    for options in ('', measured):
        for table in render(parse(*options.split())).split('\n\n'):
            assert table in page, 'write what tools/scaling.py prints into docs/scaling.md'
    assert f'python tools/scaling.py {measured}' in page


def test_the_tool(tmp_path):
    done = run_tool('scaling', '--archs', 'A0', '--speed', '16', '--gpus', '2', cwd=tmp_path)
    assert done.returncode == 0
    assert 'Speed that 2 processes keep, 32 images each, 16 img/s measured:' in done.stdout
    done = run_tool('scaling', '--speed', '16', cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == 'scaling.py: error: --speed is of one arch, got 7 in --archs'
