"""Batch norms inserted into a deployed model: inserted as identities, calibrated, trained, folded back."""

import copy
import warnings

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from tiny_runner import TINY_BACKBONE, make_model_config, make_runner

from mmrepvgg import CalibrateInsertedNormsHook, build_backbone, reparameterize
from mmrepvgg.engine.calibration import calibrate_inserted_norms
from mmrepvgg.models.forms import CheckpointFormError
from mmrepvgg.models.inserted_norm import InsertedNormBlock
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint

DEPLOY_NORM = dict(deploy=True, deploy_norm=dict(type='BN'))


def make_deployed(randomise):
    return reparameterize(randomise(build_backbone(TINY_BACKBONE)).eval())


def make_inserted(deployed):
    """A model with inserted norms, its weights from ``deployed``, in float64 as the exactness tests need it."""
    model = build_backbone(TINY_BACKBONE | DEPLOY_NORM)
    model.init_weights()
    model.load_state_dict(deployed.state_dict())
    return model.double().eval()


def make_batches(count=4, offset=1.0):
    return [torch.randn(8, 3, 32, 32, dtype=torch.float64) * 2 + offset for _ in range(count)]


def assert_equal(first, second, inputs, atol=1e-10):
    for a, b in zip(first(inputs), second(inputs), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.fixture
def deployed(randomise):
    return make_deployed(randomise)


def test_insertion_changes_nothing(deployed):
    model = make_inserted(deployed)
    assert len([m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]) == 5
    # The gain sqrt(1 + eps) is rounded to float32.
    assert_equal(model, deployed.double(), make_batches()[0], atol=1e-5)
    with torch.no_grad():
        assert next(iter(model(make_batches()[0]))).abs().max() > 0.1


def test_a_second_switch_changes_nothing(deployed):
    switched = reparameterize(make_inserted(deployed))
    again = reparameterize(switched)
    torch.testing.assert_close(dict(again.state_dict()), dict(switched.state_dict()), atol=0, rtol=0)
    assert_equal(again, switched, make_batches()[0], atol=0)


def test_calibration_measures_the_input_and_changes_nothing(deployed):
    model, batches = make_inserted(deployed).train(), make_batches()
    before = copy.deepcopy(model).eval()
    assert calibrate_inserted_norms(model, batches) == 4
    assert model.training
    model.eval()
    assert_equal(model, before, batches[0], atol=1e-5)

    norm = model.stem.deploy_norm
    inputs = torch.cat([model.stem.branch_reparam(batch) for batch in batches])
    torch.testing.assert_close(norm.running_mean, inputs.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, inputs.var((0, 2, 3)))
    assert norm.num_batches_tracked == 4
    # A norm further back sees what the blocks before it compute.
    block = model.stage_2[1]
    features = [model.stage_2[0](model.stage_1(model.stem(batch))) for batch in batches]
    expected = torch.cat([block.branch_reparam(feature) for feature in features])
    torch.testing.assert_close(block.deploy_norm.running_mean, expected.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)


def test_in_train_mode_only_a_calibrated_model_computes_the_same(deployed):
    batch = make_batches(1)
    raw, calibrated = make_inserted(deployed), make_inserted(deployed)
    calibrate_inserted_norms(calibrated, batch)
    reference = deployed.double()(batch[0])[0]
    # The biased variance of the batch against the unbiased one of the statistics, over 8 x 8 x 8 values or more.
    torch.testing.assert_close(calibrated.train()(batch[0])[0], reference, atol=0.02, rtol=0.02)
    assert (raw.train()(batch[0])[0] - reference).abs().max() > 0.3


def test_folding_back_is_exact_and_gives_the_plain_form(deployed, randomise):
    model = randomise(make_inserted(deployed))
    folded = reparameterize(model)
    assert list(folded.state_dict()) == list(deployed.state_dict())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert_equal(folded, model, make_batches()[0])
    changed = (folded.stem.branch_reparam.weight - deployed.stem.branch_reparam.weight).abs().max()
    assert changed > 1e-3  # else the norms would not have been folded in at all
    build_backbone(TINY_BACKBONE | dict(deploy=True)).load_state_dict(folded.state_dict())


@pytest.mark.parametrize('groups', [1, 2])
def test_block_folds_with_its_own_geometry(groups, randomise):
    arguments = dict(
        stride=2, padding=2, dilation=2, groups=groups, padding_mode='reflect', se_cfg=dict(ratio=2, divisor=1)
    )
    block = randomise(InsertedNormBlock(4, 8, **arguments).double()).eval()
    kernel, bias = block.get_equivalent_kernel_bias()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    expected = block(x)
    block.switch_to_deploy()
    assert block.deploy
    assert not hasattr(block, 'deploy_norm')
    torch.testing.assert_close(block.branch_reparam.weight, kernel, atol=0, rtol=0)
    torch.testing.assert_close(block.branch_reparam.bias, bias, atol=0, rtol=0)
    torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=0)
    folded = copy.deepcopy(block.state_dict())
    block.switch_to_deploy()
    assert all(torch.equal(folded[key], value) for key, value in block.state_dict().items())


def test_training_a_model_with_inserted_norms_is_no_mistake():
    model = build_backbone(TINY_BACKBONE | DEPLOY_NORM)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.train()


def test_errors_name_what_is_wrong(deployed):
    with pytest.raises(ValueError, match='needs deploy=True, got deploy=False'):
        build_backbone(TINY_BACKBONE | dict(deploy_norm=dict(type='BN')))
    for norm in (dict(type='GN', num_groups=2), dict(type='BN', affine=False)):
        with pytest.raises(ValueError, match='must be a batch norm with gains and running statistics'):
            build_backbone(TINY_BACKBONE | dict(deploy=True, deploy_norm=norm))
    inserted = make_inserted(deployed)
    with pytest.raises(CheckpointFormError, match=r'has inserted batch norms \(it has stem.deploy_norm.weight\)'):
        deployed.load_state_dict(inserted.state_dict())
    train_form = build_backbone(TINY_BACKBONE)
    with pytest.raises(CheckpointFormError, match='has inserted batch norms'):
        train_form.load_state_dict(inserted.state_dict())
    with pytest.raises(CheckpointFormError, match='is in train form'):
        inserted.load_state_dict(train_form.state_dict())
    with pytest.raises(ValueError, match='needs inserted norms and batches, got 5 and 0'):
        calibrate_inserted_norms(inserted, [])
    with pytest.raises(ValueError, match='num_batches must be at least 1'):
        CalibrateInsertedNormsHook(num_batches=0)


def test_fine_tuning_from_file_to_file(tmp_path, randomise):
    """A deploy-form file -> calibrated, trained and resumed by the Runner -> a deploy-form file."""
    plain = make_runner(tmp_path / 'plain', [], backbone=dict(deploy=True))
    randomise(plain.model)
    torch.save(dict(state_dict=plain.model.state_dict()), tmp_path / 'deploy.pth')

    class Start(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            self.model = copy.deepcopy(runner.model).eval()

    hooks = [CalibrateInsertedNormsHook(num_batches=2), start := Start()]
    runner = make_runner(tmp_path / 'tuned', hooks, DEPLOY_NORM, load_from=str(tmp_path / 'deploy.pth'))
    runner.train()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(start.model(images), plain.model.eval()(images), atol=1e-5, rtol=1e-5)
    assert start.model.backbone.stem.deploy_norm.num_batches_tracked == 2
    tuned = runner.model.eval()
    assert tuned.backbone.stem.deploy_norm.num_batches_tracked == 2 + 8
    assert (tuned(images) - start.model(images)).abs().max() > 1e-3

    config = Config(dict(model=make_model_config(DEPLOY_NORM), default_scope='mmpretrain'))
    result = reparameterize_checkpoint(config, tmp_path / 'tuned/epoch_2.pth', tmp_path / 'folded.pth')
    assert result.difference < 1e-5
    plain.model.load_state_dict(torch.load(tmp_path / 'folded.pth', weights_only=True)['state_dict'])
    torch.testing.assert_close(plain.model(images), tuned(images), atol=1e-5, rtol=1e-5)

    # Resumed norms keep their statistics: calibrating anew would undo what was learnt.
    hooks[1] = resumed = Start()
    runner = make_runner(
        tmp_path / 'tuned',
        hooks,
        DEPLOY_NORM,
        load_from=str(tmp_path / 'tuned/epoch_1.pth'),
        resume=True,
        experiment_name='resumed',
    )
    runner.train()
    assert resumed.model.backbone.stem.deploy_norm.num_batches_tracked == 2 + 4


def test_calibration_needs_inserted_norms(tmp_path):
    with pytest.raises(ValueError, match='has no inserted batch norm to calibrate'):
        make_runner(tmp_path, [CalibrateInsertedNormsHook()]).train()
