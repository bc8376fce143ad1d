"""Networks of other projects: what they compute fused, what is left of them, and what can be done with the result."""

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import timm
import torch
from timm.utils import reparameterize_model
from tool_runs import ROOT
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from mmrepvgg import reparameterize
from studies.any_model import blocks
from studies.any_model.families import FAMILIES, Family
from studies.any_model.measuring import compare, compare_in_float64
from studies.any_model.report import render
from studies.any_model.statistics import randomise

NAMES = [f'{family.source}: {family.name}' for family in FAMILIES]
TIMM = [name for name, family in zip(NAMES, FAMILIES, strict=True) if family.timm]
# of each source, and of each kind of pattern
SOME = [
    *('timm: MobileOne-S4 (SE)', 'timm: FastViT-T8', 'mmpretrain: RepVGG-A0 + SE'),
    *('written here: Diverse branch block', 'written here: PP-LCNetV3'),
]


@dataclass(frozen=True)
class Fused:
    """A small network of a family, and what was made of it."""

    family: Family
    model: nn.Module
    x: Tensor
    fused: nn.Module
    report: Any


@cache
def fuse(name: str) -> Fused:
    family = dict(zip(NAMES, FAMILIES, strict=True))[name]
    if not family.is_there:
        pytest.skip(f'timm {timm.__version__} has no {family.timm}' if family.timm else f'no {family.package}')
    torch.manual_seed(0)
    model = family.build_small()
    model.eval()
    randomise(model, torch.randn(4, 3, family.image, family.image))
    fused, report = reparameterize(model, return_report=True)
    return Fused(family, model, torch.randn(2, 3, family.image, family.image), fused, report)


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize('name', NAMES)
def test_it_computes_the_same(name):
    found = fuse(name)
    with torch.no_grad():
        assert compare(found.model, found.fused, found.x) < 1e-5
        assert compare_in_float64(found.model, found.x) < 1e-10


@pytest.mark.parametrize('name', NAMES)
def test_what_is_left(name):
    found = fuse(name)
    assert found.report.num_branches_left == 0
    assert '0 parallel linear branches left' in str(found.report)
    assert found.report.num_convs == (count(found.model, _ConvNd), found.family.convs)
    assert count(found.fused, _ConvNd) == found.family.convs
    assert found.report.num_norms_left == count(found.fused, _BatchNorm) == found.family.norms
    assert bool(found.family.norms) == bool(found.family.why)


@pytest.mark.parametrize('name', NAMES)
def test_keys(name):
    """A convolution has the name of one of its layers, the largest, and the others have no numbers any more.

    Kernels that code computes have no layer: ``fused_conv`` is put beside the norm behind it.
    """
    found = fuse(name)
    before, after = found.model.state_dict(), found.fused.state_dict()
    modules = dict(found.model.named_modules())
    for pattern in found.report.fused:
        if pattern.name not in pattern.layers:
            assert pattern.name == pattern.layers[0].replace('norm', 'fused_conv')
            assert {f'{pattern.name}.weight', f'{pattern.name}.bias'} <= after.keys()
            continue
        # a factor in a block's own code has the name of its parameter, or of the block
        layers = [layer for layer in pattern.layers if layer in modules and not list(modules[layer].children())]
        sizes = {layer: before[f'{layer}.weight'].numel() for layer in layers if f'{layer}.weight' in before}
        assert sizes[pattern.name] == max(sizes.values())
        left = {key for key in after if any(key.startswith(f'{layer}.') for layer in layers)}
        assert left == {f'{pattern.name}.weight', f'{pattern.name}.bias'}


@pytest.mark.parametrize('name', NAMES)
def test_it_can_be_trained_on(name):
    found = fuse(name)
    fused = copy.deepcopy(found.fused)
    fused.train()
    assert [module.training for module in fused.modules()] == [True] * len(list(fused.modules()))
    fused.eval()
    outputs = fused(found.x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(output.square().mean() for output in outputs).backward()
    for pattern in found.report.fused:
        layer = fused.get_submodule(pattern.name)
        if '_aux' in pattern.name:  # a head that only the training calls
            continue
        assert layer.weight.grad.isfinite().all()
        assert layer.weight.grad.abs().sum() > 0
        assert layer.bias.grad.isfinite().all()


@pytest.mark.parametrize('name', TIMM)
def test_timms_own_method_gives_the_same_and_leaves_more(name):
    found = fuse(name)
    theirs = reparameterize_model(found.model).eval()
    with torch.no_grad():
        assert compare(theirs, found.fused, found.x) < 1e-5
    assert count(theirs, _ConvNd) >= found.family.convs
    assert count(theirs, _BatchNorm) >= found.family.norms


@pytest.mark.parametrize(
    ('name', 'norms'), [('FastViT-T8', 4), ('RepGhostNet-0.5', 16), ('Next-ViT-S', 20), ('ResNet-18', 13)]
)
def test_norms_that_timms_own_method_leaves(name, norms):
    found = fuse(f'timm: {name}')
    assert count(reparameterize_model(found.model), _BatchNorm) == norms > found.report.num_norms_left


@pytest.mark.parametrize('name', SOME)
def test_it_can_be_copied_saved_and_loaded(name, tmp_path):
    found = fuse(name)
    torch.save(found.fused, tmp_path / 'whole.pth')
    whole = torch.load(tmp_path / 'whole.pth', weights_only=False)
    torch.save(found.fused.state_dict(), tmp_path / 'weights.pth')
    fresh = found.family.build_small()
    fresh.eval()
    fresh = reparameterize(fresh)
    fresh.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))
    with torch.no_grad():
        for each in (whole, copy.deepcopy(found.fused), fresh):
            assert type(each).__name__ == type(found.model).__name__
            assert isinstance(each, type(found.model))
            assert compare(found.fused, each, found.x) == 0


@pytest.mark.parametrize('name', SOME)
def test_a_model_in_train_mode_stays_in_it(name):
    found = fuse(name)
    model = copy.deepcopy(found.model)
    model.train()
    fused = reparameterize(model)
    assert all(module.training for module in fused.modules())
    fused.eval()
    with torch.no_grad():
        assert compare(found.fused, fused, found.x) == 0


@pytest.mark.parametrize('name', SOME)
def test_it_can_be_exported(name):
    found = fuse(name)
    exported = torch.export.export(found.fused, (found.x,))
    assert not [node for node in exported.graph.nodes if 'batch_norm' in str(node.target)]
    with torch.no_grad():
        assert compare(found.fused, exported.module(), found.x) < 1e-6


def test_the_example_is_compared():
    found = fuse('timm: FastViT-T8')
    _, report = reparameterize(found.model, found.x, return_report=True)
    assert 0 < report.difference < 1e-5


def test_mmpretrains_own_switch_is_wrong_with_se():
    found = fuse('mmpretrain: RepVGG-A0 + SE')
    theirs = copy.deepcopy(found.model)
    theirs.switch_to_deploy()
    with torch.no_grad():
        assert compare(found.model, theirs, found.x) > 0.01
        assert compare(found.model, found.fused, found.x) < 1e-5


class _Sized(blocks.RepConv):
    """Its code decides by the size of the image, which no graph shows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[2] > 4 else x


def test_code_that_cannot_be_followed_is_named():
    model = nn.Sequential(_Sized(8, 8), blocks.RepConv(8, 8)).eval()
    x = torch.randn(2, 8, 16, 16)
    randomise(model, x)
    fused, report = reparameterize(model, x, return_report=True)
    assert report.difference < 1e-5
    assert list(report.not_followed) == ['0']
    assert '0 parallel linear branches left, as far as the code could be followed' in str(report)
    assert count(fused[1], _ConvNd) == 1, 'the block beside it is fused'
    assert count(fused[0], _BatchNorm) == 1, 'of its branches the norm without a convolution'


def test_the_table_in_the_docs():
    """Each family has a row; and the command prints such a one."""
    page = (ROOT / 'docs/any-model.md').read_text()
    columns, rows = _read_table(page)
    assert [(row[0], row[1]) for row in rows] == [(family.name, family.source) for family in FAMILIES]
    for row in rows:
        assert row[5] == '0'
        assert float(row[6]) < 1e-5
        assert float(row[7]) < 1e-10
    printed = render(['sesr'], 1, 64)
    assert _read_table(printed)[0] == columns
    assert [row[:2] for row in _read_table(printed)[1]] == [['SESR', 'written here']]
    assert '\n\nRandom weights and statistics, 64 x 64 pixels.' in printed
    with pytest.raises(ValueError, match="`families` must be parts of names of ACNet, .*, got \\['resnet19'\\]"):
        render(['resnet19'], 1, 64)


def _read_table(page: str) -> tuple[list[str], list[list[str]]]:
    """The heading of the table, and its rows."""
    lines = [line for line in page.splitlines() if line.startswith('| network ') or ' → ' in line]
    head, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return head, rows
