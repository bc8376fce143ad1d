"""The picture of the switch is what its script draws, and the README shows it."""

import matplotlib
import pytest
import torch
from packaging.requirements import Requirement
from tool_runs import ROOT

from studies.switch_picture import THEMES, draw, make_kernels

# the newest of the tested set, with which the files are drawn
(DRAWN_BY,) = (
    Requirement(line).specifier
    for line in (ROOT / 'constraints.txt').read_text().splitlines()
    if line.startswith('matplotlib==') and '<' not in line
)


@pytest.mark.skipif(matplotlib.__version__ not in DRAWN_BY, reason=f'matplotlib {DRAWN_BY} drew the files')
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
