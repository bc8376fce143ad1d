"""The memory that the switch of a large checkpoint takes. On Linux, which tells a process its own peak."""

import sys

import pytest
import torch
from tool_runs import run_python

from mmrepvgg import load_config
from mmrepvgg.models.building import NoRandomWeights, build_model

# Runs code, and prints the largest memory in bytes that the process has had.
_PEAK = """
import sys
from contextlib import suppress
with suppress(SystemExit):
    exec(sys.argv[1])
line = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(int(line.split()[1]) * 1024)
"""
_IMPORTS = """
import torch
from mmrepvgg import load_config, reparameterize_checkpoint
from mmrepvgg.models.building import build_model
with torch.device('meta'):
    build_model(load_config(sys.argv[2]), deploy=False)
"""
_SWITCH = """
from mmrepvgg.commands.main import main
main(['reparameterize', *sys.argv[2:]])
"""


def measure_peak(code, *args):
    done = run_python('-c', _PEAK, code, *args)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def test_a_network_is_built_without_random_numbers():
    cfg = load_config('repvgg-a0_digits')
    state = torch.get_rng_state()
    with NoRandomWeights():
        model = build_model(cfg, deploy=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.backbone.stem.branch_3x3.norm.weight == 1).all()
    build_model(cfg, deploy=False)
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.deep
@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells the peak')
@pytest.mark.parametrize('name', ['repvgg-b3_8xb32', 'repvgg-d2se_8xb32', 'repvgg-l2pse_8xb32'])
def test_above_the_imports_the_switch_takes_little_more_than_two_files(name, tmp_path):
    source, destination = tmp_path / 'train.pth', tmp_path / 'deploy.pth'
    torch.save(build_model(load_config(name), deploy=False).state_dict(), source)
    used = measure_peak(_SWITCH, name, source, destination) - measure_peak(_IMPORTS, name)
    assert destination.exists()
    share = used / source.stat().st_size
    print(f'{name}: {share:.2f} times the file')
    assert share <= 2.2
