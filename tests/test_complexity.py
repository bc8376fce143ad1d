"""Parameters, multiply-adds and activations, against the published structure."""

import re

import pytest
import torch
from mmengine.config import Config
from tool_runs import ROOT, fail, run_tool, succeed
from torch import nn

from mmrepvgg.models.building import build_model
from mmrepvgg.models.complexity import count_macs, count_params
from mmrepvgg.reparam.cost import measure_cost

STAGES = ['stem', 'stage_1', 'stage_2', 'stage_3', 'stage_4']
# GMACs at 224 x 224 of the train form and the deploy form; L2pse's train form is given at 256, with its heads.
GMACS = {
    'A0': (1.513, 1.361),
    'A1': (2.626, 2.364),
    'A2': (5.685, 5.117),
    'B0': (3.397, 3.058),
    'B1': (13.128, 11.815),
    'B1g2': (9.788, 8.810),
    'B1g4': (8.119, 7.307),
    'B2': (20.418, 18.377),
    'B2g2': (15.200, 13.680),
    'B2g4': (12.591, 11.332),
    'B3': (29.121, 26.209),
    'B3g2': (21.606, 19.446),
    'B3g4': (17.849, 16.064),
    'D2se': (36.477, 32.830),
    'L2pse': (48.36, 32.836),
}


def read_config(arch: str) -> Config:
    return Config.fromfile(ROOT / f'configs/repvgg/repvgg-{arch.lower()}_8xb32.py')


@pytest.mark.parametrize('arch', GMACS)
def test_macs_are_the_published_ones(arch):
    shape = (256, 256) if arch == 'L2pse' else (224, 224)
    train, deploy = measure_cost(read_config(arch), False, shape), measure_cost(read_config(arch), True)
    digits = 2 if arch == 'L2pse' else 3
    assert round(train[-1].macs / 1e9, digits) == GMACS[arch][0]
    assert round(deploy[-1].macs / 1e9, 3) == GMACS[arch][1]
    for costs in (train, deploy):
        *parts, total = costs
        assert [part.name for part in parts] == [f'backbone.{name}' for name in STAGES] + ['head']
        assert total.name == 'total'
        for count in ('params', 'macs', 'activations'):
            assert sum(getattr(part, count) for part in parts) == getattr(total, count)
            assert all(getattr(part, count) for part in parts)


@pytest.mark.parametrize('deploy', [False, True])
def test_cost_of_a_stage_by_hand(deploy):
    cost = {part.name: part for part in measure_cost(read_config('A0'), deploy)}
    # the stem: 3 -> 48 channels, 112 x 112 pixels, a 3x3 and (train) a 1x1 branch
    taps, branches = (9, 1) if deploy else (10, 2)
    assert cost['backbone.stem'].macs == 112 * 112 * 3 * 48 * taps
    assert cost['backbone.stem'].activations == 112 * 112 * 48 * branches
    assert cost['backbone.stem'].params == 3 * 48 * taps + (48 if deploy else 4 * 48)
    assert cost['head'].macs == 1280 * 1000
    assert cost['head'].activations == 1000


def test_cost_equals_that_of_a_real_forward_pass():
    cfg = read_config('A0')
    model, image = build_model(cfg, False), torch.randn(1, 3, 96, 64)
    total = measure_cost(cfg, False, (96, 64))[-1]
    assert count_macs(model, image) == total.macs
    assert count_params(model) == total.params
    sizes = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    model(image)
    assert sum(sizes) == total.activations


def test_bad_shape_is_an_error():
    with pytest.raises(
        ValueError, match=r'shape must be two positive numbers, height and width in pixels, got \(0, 224\)'
    ):
        measure_cost(read_config('A0'), False, (0, 224))


def test_tool_prints_both_forms():
    output = succeed('get_flops', 'configs/repvgg/deploy/repvgg-a0_deploy.py', '--shape', '224', cwd=ROOT)
    rows = [re.split(r' *\| +', line.strip('| ')) for line in output.splitlines()]
    assert ['total', '9,108,968', '1.513', '3.589'] in rows
    assert ['total', '8,309,384', '1.361', '1.795'] in rows
    assert sum(row[0] == 'backbone.stage_3' for row in rows) == 2
    assert 'multiply-adds of convolutions and linear layers' in output


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        (['0'], "must be a whole number of at least 1, got '0'"),
        (['1', '2', '3'], '--shape takes one number or two,'),
    ],
)
def test_tool_refuses_a_bad_shape_before_torch_is_imported(shape, message, tmp_path):
    result = run_tool('get_flops', 'repvgg-a0_8xb32', '--shape', *shape, cwd=tmp_path, without=['torch'])
    assert result.returncode == 2
    assert message in result.stderr


def test_tool_reports_an_error_in_one_line(tmp_path):
    assert fail('get_flops', 'missing.py', cwd=tmp_path) == 'get_flops.py: error: missing.py does not exist'
