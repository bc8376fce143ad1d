"""The picture of the switch is what its script draws, and the README shows it."""

import re

import matplotlib
import pytest
import torch
from tool_runs import ROOT

from studies.switch_picture import THEMES, draw, make_kernels

TESTED = re.search(r'^matplotlib==(\S+)', (ROOT / 'constraints.txt').read_text(), re.MULTILINE)[1]


@pytest.mark.skipif(matplotlib.__version__ != TESTED, reason=f'matplotlib {TESTED} drew the file')
@pytest.mark.parametrize('name', THEMES)
def test_the_file_is_what_the_script_draws(name, tmp_path):
    draw(THEMES[name], tmp_path / 'new.svg')
    assert (tmp_path / 'new.svg').read_text() == (ROOT / f'docs/switch-{name}.svg').read_text()


def test_each_kind_of_branch_can_be_seen():
    kernels = make_kernels()
    assert list(kernels) == ['3x3', '1x1', 'identity']
    sizes = [kernel.abs().max().item() for kernel in kernels.values()]
    assert max(sizes) < 3 * min(sizes)
    assert torch.count_nonzero(kernels['identity'].abs() > 0.1) == 4


def test_the_readme_shows_both():
    readme = (ROOT / 'README.md').read_text()
    for name in THEMES:
        assert f'docs/switch-{name}.svg' in readme
