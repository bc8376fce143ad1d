import ast
import re
from pathlib import Path

import pytest
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope, Registry
from mmpretrain.models.backbones import RepVGG as OtherRepVGG
from mmpretrain.registry import HOOKS, METRICS, OPTIM_WRAPPERS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from tool_runs import run_python

import mmrepvgg
from mmrepvgg import RepVGG, build_backbone, build_classifier

CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='RepVGG', arch='A0'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=1280),
)


@pytest.mark.parametrize('scope', [None, 'mmengine', 'mmpretrain', 'mmrepvgg'])
def test_build_backbone_gives_this_projects_class_in_every_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert type(build_backbone(dict(type='RepVGG', arch='A0'))) is RepVGG
        assert type(build_backbone(dict(type='mmrepvgg.RepVGG', arch='A0'))) is RepVGG
        assert type(build_classifier(CLASSIFIER).backbone) is RepVGG
        assert type(build_backbone(dict(type='mmpretrain.RepVGG', arch='A0'))) is OtherRepVGG
        assert type(build_backbone(dict(type='ResNet', depth=18))).__name__ == 'ResNet'


def test_the_prefixed_name_works_from_every_registry():
    sibling = Registry('model', parent=ROOT_MODELS, scope='somelab')
    for registry in (ROOT_MODELS, MMPRETRAIN_MODELS, sibling):
        assert registry.get('mmrepvgg.RepVGG') is RepVGG
        assert type(registry.build(dict(type='mmrepvgg.RepVGG', arch='A0', deploy=True))) is RepVGG
    for registry, name in ((HOOKS, 'ChannelsLastHook'), (METRICS, 'PredictionRecord')):
        assert registry.get(f'mmrepvgg.{name}') is getattr(mmrepvgg, name)
    assert OPTIM_WRAPPERS.get('mmrepvgg.CPUAmpOptimWrapper') is mmrepvgg.CPUAmpOptimWrapper


def test_build_classifier_needs_nothing_imported_before():
    code = (
        f'import mmrepvgg, warnings; print(type(mmrepvgg.build_classifier({CLASSIFIER!r}).backbone).__module__)\n'
        "warnings.warn('Fail to import ``MultiScaleDeformableAttention``, says the user')"
    )
    done = run_python('-c', code)
    # words of mmcv-lite, and of the onedl forks, are silenced, and those of a user's program are not
    assert done.stdout == 'mmrepvgg.models.backbone\n'
    assert re.fullmatch(r'<string>:2: UserWarning: Fail to .* says the user\n', done.stderr)


def test_mmpretrains_own_class_stays_as_it_is():
    assert MMPRETRAIN_MODELS.get('RepVGG') is OtherRepVGG


@pytest.mark.parametrize(
    ('cfg', 'error', 'message'),
    [
        ('A0', TypeError, 'cfg must be a dict with a type, got str'),
        (dict(arch='A0'), KeyError, 'must contain the key "type"'),
        (dict(type='RepVGG', arch='A9'), ValueError, "arch must be one of A0, .*, got 'A9'"),
    ],
)
def test_wrong_configs_are_refused_with_the_reason(cfg, error, message):
    with pytest.raises(error, match=message):
        build_backbone(cfg)


def test_the_config_of_the_caller_is_not_changed():
    cfg = dict(type='RepVGG', arch='A0')
    build_backbone(cfg)
    assert cfg == dict(type='RepVGG', arch='A0')


def test_importing_the_package_imports_neither_torch_nor_mmpretrain():
    code = 'import sys, mmrepvgg; print([m for m in ("torch", "mmengine", "mmcv", "mmpretrain") if m in sys.modules])'
    assert run_python('-c', code).stdout.strip() == '[]'


def test_every_public_name_resolves_and_others_do_not():
    for name in mmrepvgg.__all__:
        assert getattr(mmrepvgg, name) is not None
    assert dir(mmrepvgg) == sorted(mmrepvgg.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'RepVGGG'"):
        mmrepvgg.RepVGGG  # noqa: B018


def test_type_checkers_see_the_public_names():
    module = ast.parse(Path(mmrepvgg.__file__).read_text())
    (block,) = (node for node in module.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == 'TYPE_CHECKING'
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == mmrepvgg._PUBLIC


@pytest.mark.parametrize(
    'code',
    ['mmrepvgg.RepVGG', 'import mmrepvgg.registry', 'mmrepvgg.zoo.configs.load_config("repvgg-a0_8xb32")'],
)
def test_without_mmcv_the_first_use_says_what_to_install(code):
    hide = (
        'import importlib.util as u; find = u.find_spec\n'
        'u.find_spec = lambda name, *a: None if name == "mmcv" else find(name, *a)\n'
    )
    assert run_python('-c', hide + 'import mmrepvgg').returncode == 0
    done = run_python('-c', f'{hide}import mmrepvgg.zoo.configs; {code}')
    assert done.returncode != 0
    assert 'pip install "mmcv-lite>=2.1,<2.3"' in done.stderr.splitlines()[-1]


def test_the_registry_is_imported_by_the_scope_alone():
    code = (
        'from mmengine.registry import MODELS\n'
        "m = MODELS.build(dict(type='mmrepvgg.RepVGG', arch='A0'))\n"
        'import io, torch; from mmengine.logging import HistoryBuffer; file = io.BytesIO()\n'
        'torch.save(HistoryBuffer([1.0, 3.0], [1, 1]), file); file.seek(0)\n'
        'print(type(m).__module__, torch.load(file, weights_only=True).mean())'
    )
    assert run_python('-c', code).stdout.splitlines()[-1].split() == ['mmrepvgg.models.backbone', '2.0']
