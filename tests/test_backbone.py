import copy
import warnings

import pytest
import torch
from mmengine.runner.checkpoint import _load_checkpoint_with_prefix, load_checkpoint
from tool_runs import run_python
from torch import nn

from mmrepvgg import RepVGG
from mmrepvgg.models.archs import ARCHS
from mmrepvgg.models.blocks import RepVGGBlock
from mmrepvgg.models.forms import CheckpointFormError
from mmrepvgg.models.fusion import FusionError

TINY = dict(num_blocks=[1, 2, 2, 1], width_factor=[0.25, 0.25, 0.25, 0.25], group_layer_map={2: 2, 4: 4})
TINY_SE = dict(TINY, se_cfg=dict(ratio=4, divisor=1))
RELATIVE_TOLERANCE = 1e-5


@pytest.mark.parametrize(('arch', 'base_channels'), [*((arch, 16) for arch in ARCHS), ('A0', 64)])
def test_both_forms_agree_in_float32(randomise, arch, base_channels):
    backbone = randomise(RepVGG(arch, base_channels=base_channels)).eval()
    x = torch.randn(1, 3, 64, 64)
    head = nn.Linear(1, 1000)
    with torch.no_grad():
        (expected,) = backbone(x)
        head.weight = nn.Parameter(torch.randn(1000, expected.shape[1]) * 0.01)
        backbone.switch_to_deploy()
        (actual,) = backbone(x)
        logits, switched_logits = head(expected.mean((2, 3))), head(actual.mean((2, 3)))
    assert backbone.deploy
    assert all(block.deploy for block in backbone.modules() if isinstance(block, RepVGGBlock))
    assert expected.abs().max() > 0
    assert (switched_logits - logits).abs().max() <= RELATIVE_TOLERANCE * logits.abs().max()


@pytest.mark.parametrize(
    ('out_indices', 'channels'),
    [((3,), [128]), ((-1,), [128]), (-1, [128]), ((0, -2), [16, 64]), ((0, 1, 2, 3), [16, 32, 64, 128])],
)
def test_out_indices(out_indices, channels):
    outs = RepVGG(TINY, out_indices=out_indices)(torch.rand(1, 3, 64, 64))
    assert isinstance(outs, tuple)
    assert [out.shape[1] for out in outs] == channels


def test_strides_and_dilations_keep_resolution(randomise):
    backbone = randomise(RepVGG(TINY_SE, strides=(2, 2, 1, 1), dilations=(1, 1, 2, 4), out_indices=(1, 2, 3))).eval()
    backbone = backbone.double()
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    expected = backbone(x)
    assert [out.shape[-1] for out in expected] == [8, 8, 8]
    backbone.switch_to_deploy()
    torch.testing.assert_close(backbone(x), expected, atol=1e-10, rtol=0)


def test_mtsppf_pooling(randomise):
    backbone = randomise(RepVGG(TINY, add_ppf=True, out_indices=(2, 3))).eval().double()
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    expected = backbone(x)
    assert torch.equal(expected[1], backbone.ppf(backbone.stage_4(expected[0])))
    backbone.switch_to_deploy()
    torch.testing.assert_close(backbone(x), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(out_indices=(7,)), r'out_indices must be stages from 0 to 3, .* got \(7,\)'),
        (dict(out_indices=(-5,)), 'out_indices must be stages from 0 to 3'),
        (dict(out_indices=()), 'out_indices must be stages from 0 to 3'),
        (dict(out_indices=(3, -1)), 'out_indices must name each stage once'),
        (dict(frozen_stages=5), 'frozen_stages must be an integer from -1 to 4, got 5'),
        (dict(frozen_stages=-2), 'frozen_stages must be an integer from -1 to 4, got -2'),
        (dict(strides=(2, 2)), r'strides must have one number a stage \(4\), got \(2, 2\)'),
        (dict(dilations=(1,)), r'dilations must have one number a stage \(4\), got \(1,\)'),
    ],
)
def test_wrong_arguments_are_refused_with_the_reason(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RepVGG('A0', **kwargs)


def test_arguments_are_checked_under_python_o_too():
    code = "from mmrepvgg import RepVGG\ntry: RepVGG('A0', out_indices=(7,))\nexcept ValueError: print('refused')"
    assert run_python('-O', '-c', code).stdout.strip() == 'refused'


@pytest.mark.parametrize('deploy', [False, True])
def test_train_and_eval_return_the_model(deploy):
    backbone = RepVGG(TINY, deploy=deploy)
    assert backbone.eval() is backbone
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert backbone.train() is backbone


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_stages_are_frozen_from_construction_on(frozen_stages):
    backbone = RepVGG(TINY_SE, frozen_stages=frozen_stages)
    names = ['stem', 'stage_1', 'stage_2', 'stage_3', 'stage_4']
    for model in (backbone, backbone.train()):
        for index, name in enumerate(names):
            frozen = index <= frozen_stages
            stage = getattr(model, name)
            assert all(p.requires_grad is not frozen for p in stage.parameters()), name
            assert all(m.training is not frozen for m in stage.modules()), name
    backbone.switch_to_deploy()
    assert not any(p.requires_grad for p in backbone.stem.parameters()) or frozen_stages < 0


def test_norm_eval_keeps_all_batch_norms_in_eval_mode():
    backbone = RepVGG(TINY, norm_eval=True).train()
    assert backbone.training
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_training_a_network_built_in_deploy_form_warns_once(randomise):
    backbone = RepVGG(TINY, deploy=True)
    with pytest.warns(UserWarning, match='training a RepVGG that was built with deploy=True'):
        backbone.train()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        backbone.train()
        backbone.eval()
        # whoever switches a trained model means to
        switched = RepVGG(TINY)
        switched.switch_to_deploy()
        switched.train()
    backbone(torch.rand(2, 3, 32, 32))[0].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('arch', [TINY, TINY_SE], ids=['plain', 'se'])
def test_script_trace_and_export(randomise, arch, deploy):
    backbone = randomise(RepVGG(arch, out_indices=(1, 3))).eval()
    if deploy:
        backbone.switch_to_deploy()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = backbone(x)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)
            scripted = torch.jit.script(backbone)
        exported = torch.export.export(backbone, (x,)).module()
        for model in (scripted, torch.fx.symbolic_trace(backbone), exported):
            torch.testing.assert_close(tuple(model(x)), expected, atol=1e-6, rtol=0)


def test_export_with_a_dynamic_batch(randomise):
    backbone = randomise(RepVGG(TINY_SE, deploy=True)).eval()
    shapes = ({0: torch.export.Dim('batch', min=1, max=64)},)
    exported = torch.export.export(backbone, (torch.rand(2, 3, 32, 32),), dynamic_shapes=shapes).module()
    x = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(exported(x), backbone(x), atol=1e-6, rtol=0)


def test_checkpointing_trains_the_whole_network_alike():
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = RepVGG(TINY_SE, with_cp=with_cp).double().train()
        backbone(torch.rand(4, 3, 32, 32, dtype=torch.float64))[0].square().sum().backward()
        gradients.append(([p.grad for p in backbone.parameters()], backbone.state_dict()))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize('size', [33, 128, 160])
def test_a_training_step_in_channels_last(size):
    """On CPUs with AVX-512 a strided 1x1 convolution of an image corrupts the heap here, and the process dies."""
    backbone = RepVGG(TINY).train().to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, size, size).to(memory_format=torch.channels_last)
    reference = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    for model, inputs in ((backbone, x), (reference, x.contiguous())):
        model(inputs)[0].square().mean().backward()
    for (name, p), q in zip(backbone.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-3, rtol=1e-2, msg=name)


def test_no_convolution_of_the_train_form_is_a_strided_1x1():
    convs = [m for m in RepVGG('A0').modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert convs
    assert all(conv.stride == (1, 1) for conv in convs)


class TestForms:
    """A checkpoint of the other form is never loaded in part."""

    def states(self):
        trained = RepVGG(TINY)
        deployed = copy.deepcopy(trained)
        deployed.switch_to_deploy()
        return trained, deployed

    @pytest.mark.parametrize('strict', [True, False])
    def test_the_backbone_refuses_the_other_form(self, strict):
        trained, deployed = self.states()
        before = copy.deepcopy(deployed.state_dict())
        with pytest.raises(CheckpointFormError, match='in train form .* `reparameterize_checkpoint`'):
            deployed.load_state_dict(trained.state_dict(), strict=strict)
        torch.testing.assert_close(dict(deployed.state_dict()), dict(before), atol=0, rtol=0)
        with pytest.raises(CheckpointFormError, match='in deploy form .* use the deploy config'):
            trained.load_state_dict(deployed.state_dict(), strict=strict)

    def test_nothing_is_loaded_when_a_late_block_is_of_the_other_form(self):
        trained, deployed = self.states()
        mixed = {k: v + 1 for k, v in trained.state_dict().items() if not k.startswith('stage_4')}
        mixed |= {k: v for k, v in deployed.state_dict().items() if k.startswith('stage_4')}
        before = copy.deepcopy(dict(trained.state_dict()))
        with pytest.raises(CheckpointFormError, match=r'it has stage_4\.0\.branch_reparam'):
            trained.load_state_dict(mixed, strict=False)
        torch.testing.assert_close(dict(trained.state_dict()), before, atol=0, rtol=0)

    def test_mmengines_lenient_loading_refuses_it_too(self, tmp_path):
        trained, deployed = self.states()
        torch.save({f'backbone.{k}': v for k, v in trained.state_dict().items()}, tmp_path / 'trained.pth')
        with pytest.raises(CheckpointFormError, match='in train form'):
            load_checkpoint(nn.ModuleDict(dict(backbone=deployed)), str(tmp_path / 'trained.pth'))
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth'), prefix='backbone.')
        with pytest.raises(CheckpointFormError, match='in train form'):
            RepVGG(TINY, deploy=True, init_cfg=init_cfg).init_weights()

    def test_a_switch_that_fails_leaves_the_network_whole(self, randomise):
        backbone = randomise(RepVGG(TINY)).eval()
        backbone.stage_4[0].branch_1x1[1] = nn.GroupNorm(2, 128)
        x = torch.rand(1, 3, 32, 32)
        before = backbone(x)
        with pytest.raises(FusionError, match='cannot fuse GroupNorm'):
            backbone.switch_to_deploy()
        assert not backbone.deploy
        assert torch.equal(backbone(x)[0], before[0])


def test_pretrained_weights_are_read_once(tmp_path, monkeypatch):
    source = RepVGG(TINY)
    file = tmp_path / 'weights.pth'
    torch.save({f'backbone.{k}': v for k, v in source.state_dict().items()}, file)
    reads = []

    def counting_load(*args, **kwargs):
        reads.append(args)
        return _load_checkpoint_with_prefix(*args, **kwargs)

    monkeypatch.setattr('mmengine.runner.checkpoint._load_checkpoint_with_prefix', counting_load)
    backbone = RepVGG(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(file), prefix='backbone.'))
    backbone.init_weights()
    assert len(reads) == 1
    torch.testing.assert_close(dict(backbone.state_dict()), dict(source.state_dict()), atol=0, rtol=0)


def test_initialisation():
    backbone = RepVGG(TINY)
    backbone.init_weights()
    assert torch.equal(backbone.stem.branch_3x3.norm.weight, torch.ones(16))
    std = backbone.stage_4[0].branch_3x3.conv.weight.std().item()
    assert std == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)  # He, fan_out
