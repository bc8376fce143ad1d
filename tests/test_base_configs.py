"""Configs elsewhere whose bases come with this package."""

import pytest
from mmengine.config import Config
from tool_runs import fail_here

import mmrepvgg
from mmrepvgg import base_configs, load_config


def test_a_base_by_its_name_in_any_program(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = __import__('mmrepvgg').base_configs('repvgg-a1_8xb32')\nmodel = dict(head=dict(num_classes=7))\n"
    )
    for read in (Config.fromfile, load_config):
        cfg = read(tmp_path / 'mine.py')
        assert (cfg.model.backbone.arch, cfg.model.head.num_classes) == ('A1', 7)


def test_parts_and_a_name_that_does_not_exist():
    (part,) = base_configs('models/repvgg-a0')
    assert part.endswith('configs/_base_/models/repvgg-a0.py')
    with pytest.raises(FileNotFoundError, match=r"no config 'repvgg-a9_8xb32' to be a base; there are repvgg-a"):
        base_configs('repvgg-a9_8xb32')


@pytest.mark.skipif('site-packages' in mmrepvgg.__file__, reason='mmengine finds the bases of an installed wheel')
def test_mmengines_own_form_in_a_clone_names_the_other(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmrepvgg::repvgg/repvgg-a0_8xb32.py'\n")
    with pytest.raises(ValueError, match=r'needs an installed wheel, and _base_ = __import__.*base_configs'):
        load_config(tmp_path / 'mine.py')


@pytest.mark.parametrize(
    'command',
    [
        ['train', 'empty.py'],
        ['test', 'empty.py', 'some.pth'],
        ['export', 'empty.py', 'some.pth', 'some.onnx'],
        ['reparameterize', 'empty.py', 'some.pth', 'deploy.pth'],
        ['flops', 'empty.py'],
    ],
    ids=lambda command: command[0],
)
def test_a_config_without_a_model_is_named(command, small_source, tmp_path):
    (tmp_path / 'empty.py').write_text('x = 1\n')
    (tmp_path / 'some.pth').symlink_to(small_source)
    assert 'the config must have a model; start from' in fail_here(*command, cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {'empty.py', 'some.pth'}
