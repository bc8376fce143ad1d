"""The comparison of a checkpoint with its deploy form or its exported file, layer by layer."""

import copy

import pytest
import torch
from tool_runs import fail_here, run_command, succeed_here

from mmrepvgg import build_classifier, compare_layers, reparameterize
from mmrepvgg.checkpoints.seals import SEAL_ENTRY
from mmrepvgg.models.building import build_model
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.reparam.layers import record_layers
from mmrepvgg.runtimes.export import export_model

BLOCKS = ['backbone.stem', *(f'backbone.stage_{i}.0' for i in range(1, 5))]
LAYERS = [name for block in BLOCKS for name in (block, *(f'{block}.se_layer.conv{i}.conv' for i in (1, 2)))]
DAMAGED = 'backbone.stage_2.0'


@pytest.fixture
def deployed(small_cfg, small_source, tmp_path):
    reparameterize_checkpoint(small_cfg, small_source, tmp_path / 'deploy.pth')
    return tmp_path / 'deploy.pth'


def damage(path, key, place=0):
    content = torch.load(path, weights_only=True)
    content['state_dict'][key].view(-1)[place] += 0.5
    torch.save(content, path)


@pytest.mark.parametrize('se_after_act', [False, True])
@pytest.mark.parametrize('block', ['RepVGGBlock', 'QARepVGGBlock'])
def test_a_block_is_one_layer_in_both_forms(randomise, small_cfg, block, se_after_act):
    cfg = copy.deepcopy(small_cfg.model)
    cfg.backbone.block = block
    cfg.backbone.arch.se_after_act = se_after_act
    model = randomise(build_classifier(cfg)).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    scores, layers = record_layers(model, x)
    assert list(layers) == [*LAYERS, 'head.fc']
    stem = model.backbone.stem
    torch.testing.assert_close(layers['backbone.stem'], stem._sum_branches(x))
    torch.testing.assert_close(layers['head.fc'], scores)
    torch.testing.assert_close(scores, model(x))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    torch.testing.assert_close(record_layers(reparameterize(model), x), (scores, layers), atol=1e-10, rtol=0)


def test_the_two_forms_agree_in_all_layers(small_cfg, small_source, deployed):
    result = compare_layers(small_cfg, small_source, deployed)
    assert list(result.differences) == [*LAYERS, 'head.fc', 'scores']
    assert result.first is None
    assert all(0 <= found.relative < 1e-5 for found in result.differences.values())
    assert result.differences['scores'].num_inputs == 3


@pytest.mark.parametrize(
    ('key', 'layer'),
    [
        (f'{DAMAGED}.branch_reparam.weight', DAMAGED),
        (f'{DAMAGED}.branch_reparam.bias', DAMAGED),
        (f'{DAMAGED}.se_layer.conv2.conv.weight', f'{DAMAGED}.se_layer.conv2.conv'),
        ('head.fc.bias', 'head.fc'),
    ],
)
def test_the_first_layer_that_departs_is_that_of_the_damaged_weight(small_cfg, small_source, deployed, key, layer):
    damage(deployed, key)
    assert compare_layers(small_cfg, small_source, deployed).first == layer


@pytest.mark.parametrize(
    ('suffix', 'options'),
    [
        ('.onnx', dict(opset=12)),
        ('.onnx', dict(precision='fp16', with_preprocess=True, softmax=True, dynamic_batch=False, batch_size=2)),
        ('.xml', {}),
        ('.xml', dict(precision='fp16', with_preprocess=True, softmax=True, dynamic_batch=False, batch_size=2)),
        ('.pt2', dict(precision='bf16', with_preprocess=True)),
        ('.safetensors', dict(precision='fp16')),
    ],
)
def test_a_file_that_was_made_of_another_checkpoint(small_cfg, small_source, tmp_path, suffix, options):
    path, other = tmp_path / f'net{suffix}', tmp_path / 'other.pth'
    export_model(small_cfg, small_source, path, **options)
    result = compare_layers(small_cfg, small_source, path)
    assert result.first is None
    assert result.shows_layers
    assert list(result.differences) == [*LAYERS, 'head.fc', 'scores']

    torch.save(torch.load(small_source, weights_only=True), other)
    damage(other, f'{DAMAGED}.branch_3x3.conv.weight')
    assert compare_layers(small_cfg, other, path).first == DAMAGED


def test_a_damaged_onnx_file(small_cfg, small_source, tmp_path):
    import onnx
    from onnx import numpy_helper

    export_model(small_cfg, small_source, tmp_path / 'net.onnx')
    model = onnx.load(tmp_path / 'net.onnx')
    (weight,) = (tensor for tensor in model.graph.initializer if f'{DAMAGED}.branch_reparam.weight' in tensor.name)
    values = numpy_helper.to_array(weight).copy()
    values.reshape(-1)[7] *= -20
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    # a file of another tool has no hash
    del model.metadata_props[[entry.key for entry in model.metadata_props].index(SEAL_ENTRY)]
    onnx.save(model, tmp_path / 'net.onnx')
    (tmp_path / 'config.py').write_text(small_cfg.pretty_text)
    line = fail_here('compare', 'config.py', small_source, 'net.onnx', '--layers', cwd=tmp_path)
    assert f'{DAMAGED} is the first layer that departs' in line
    assert 'net.onnx was not made from this checkpoint, or its weights there are damaged' in line


@pytest.mark.parametrize('suffix', ['.ts', '.param'])
def test_a_format_that_does_not_show_its_layers(small_cfg, small_source, export_once, tmp_path, suffix):
    path = export_once(small_cfg, suffix)[1]
    result = compare_layers(small_cfg, small_source, path)
    assert not result.shows_layers
    assert list(result.differences) == ['scores']
    assert result.first is None


def test_the_command(small_cfg, small_source, deployed, tmp_path):
    (tmp_path / 'config.py').write_text(small_cfg.pretty_text)
    output = succeed_here('compare', 'config.py', small_source, 'deploy.pth', '--layers', cwd=tmp_path)
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in output.splitlines()]
    assert rows[0] == ['layer', 'largest difference', 'largest output', 'relative']
    assert [row[0] for row in rows[2:]] == [*LAYERS, 'head.fc', 'scores']
    line = fail_here(
        'compare', 'config.py', small_source, 'deploy.pth', '--layers', '--tolerance', '1e-12', cwd=tmp_path
    )
    assert 'backbone.stem is the first layer that departs' in line
    for args, message in (
        (['deploy.pth', '--data', '.'], '--data and --tolerance go with --layers'),
        (['net.onnx'], 'net.onnx is an exported file, which is compared with --layers'),
    ):
        done = run_command('compare', 'config.py', small_source, *args, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(se_cfg=None), r'net.pt2 must have the layers of .*train.pth, but lacks backbone.stage_1.0.se_layer'),
        (dict(width_factor=[0.25, 0.25, 0.25, 0.5]), r'backbone.stage_4.0 of .*net.pt2 must be as large as in .*, got'),
    ],
)
def test_a_file_of_another_model(small_cfg, small_source, tmp_path, changes, message):
    other = copy.deepcopy(small_cfg)
    other.model.backbone.arch.update(changes)
    other.model.head.in_channels = int(512 * other.model.backbone.arch.width_factor[3])
    torch.save(build_model(other, deploy=False).state_dict(), tmp_path / 'other.pth')
    export_model(other, tmp_path / 'other.pth', tmp_path / 'net.pt2')
    with pytest.raises(ValueError, match=message):
        compare_layers(small_cfg, small_source, tmp_path / 'net.pt2')
