"""The custom L2 penalty and the hook that adds it to the loss."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from tiny_runner import NoiseDataset, make_runner

from mmrepvgg import CustomL2Hook, RepVGGBlock
from mmrepvgg.engine.custom_l2 import custom_l2


def make_random_block(in_channels, out_channels, **kwargs):
    torch.manual_seed(0)
    block = RepVGGBlock(in_channels, out_channels, **kwargs).double()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.1, 3)
    return block


def compute_reference(block) -> float:
    """The formula channel by channel in numpy."""

    def read(branch):
        gain, var = branch.norm.weight.detach().numpy(), branch.norm.running_var.numpy()
        return branch.conv.weight.detach().numpy(), gain / np.sqrt(var + branch.norm.eps)

    (kernel_3x3, scale_3x3), (kernel_1x1, scale_1x1) = read(block.branch_3x3), read(block.branch_1x1)
    total = 0.0
    for k3, t3, k1, t1 in zip(kernel_3x3, scale_3x3, kernel_1x1, scale_1x1, strict=True):
        outer = [k3[:, i, j] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        total += sum((tap**2).sum() for tap in outer)
        total += ((k3[:, 1, 1] * t3 + k1[:, 0, 0] * t1) ** 2).sum() / (t3**2 + t1**2)
    return float(total)


BLOCKS = [
    pytest.param(dict(in_channels=4, out_channels=6, stride=2), id='no identity'),
    pytest.param(dict(in_channels=4, out_channels=4), id='identity'),
    pytest.param(dict(in_channels=4, out_channels=8, groups=2), id='groups'),
]


@pytest.mark.parametrize('arguments', BLOCKS)
def test_equals_the_formula(arguments):
    block = make_random_block(**arguments)
    torch.testing.assert_close(custom_l2(block).item(), compute_reference(block), rtol=1e-12, atol=0)


def test_the_identity_branch_takes_no_part():
    block = make_random_block(in_channels=4, out_channels=4)
    before = custom_l2(block).item()
    torch.nn.init.constant_(block.branch_norm.weight, 100)
    assert custom_l2(block).item() == before


def test_gradient_reaches_the_kernels_only_and_is_that_of_the_formula():
    block = make_random_block(in_channels=2, out_channels=2)
    custom_l2(block).backward()
    assert {name for name, p in block.named_parameters() if p.grad is not None} == {
        'branch_3x3.conv.weight',
        'branch_1x1.conv.weight',
    }
    for kernel in (block.branch_3x3.conv.weight, block.branch_1x1.conv.weight):
        for index in np.ndindex(*kernel.shape):
            values = []
            for step in (1e-6, -2e-6, 1e-6):  # up, down, and back
                with torch.no_grad():
                    kernel[index] += step
                values.append(compute_reference(block))
            assert kernel.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


def test_gains_of_zero_give_no_nan():
    block = make_random_block(in_channels=4, out_channels=4)
    for branch in (block.branch_3x3, block.branch_1x1):
        torch.nn.init.zeros_(branch.norm.weight)
    penalty = custom_l2(block)
    penalty.backward()
    kernel = block.branch_3x3.conv.weight
    expected = kernel.square().sum() - kernel[:, :, 1, 1].square().sum()
    torch.testing.assert_close(penalty, expected)
    assert kernel.grad.isfinite().all()


def test_a_deployed_block_has_no_penalty():
    block = make_random_block(in_channels=4, out_channels=4)
    block.switch_to_deploy()
    with pytest.raises(ValueError, match='needs the branches of a block in train form'):
        custom_l2(block)


# The penalty is computed after the forward pass, which in train mode updates the statistics.
FIXED_STATISTICS = dict(norm_eval=True)


def read_log(work_dir) -> list[dict]:
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize('accumulative_counts', [1, 2])
def test_hook_logs_the_loss_and_moves_the_decay(tmp_path, accumulative_counts):
    class FirstPenalty(CustomL2Hook):
        priority = 'LOW'

        def before_train(self, runner):
            super().before_train(runner)
            blocks = [m for m in runner.model.modules() if isinstance(m, RepVGGBlock)]
            self.expected = 0.01 / 2 * sum(compute_reference(block) for block in blocks)

    optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.01)
    wrapper = dict(
        optimizer=optimizer, paramwise_cfg=dict(bias_decay_mult=0.0), accumulative_counts=accumulative_counts
    )
    hook = FirstPenalty()
    runner = make_runner(tmp_path, [hook], FIXED_STATISTICS, optim_wrapper=wrapper)
    runner.train()
    records = read_log(tmp_path)
    assert len(records) == 8
    assert records[0]['loss_custom_l2'] == pytest.approx(hook.expected, rel=1e-5)
    assert records[-1]['loss_custom_l2'] < records[0]['loss_custom_l2']

    names = {id(p): name for name, p in runner.model.named_parameters()}
    decays = {names[id(p)]: g['weight_decay'] for g in runner.optim_wrapper.optimizer.param_groups for p in g['params']}
    kernels = [name for name in decays if 'conv.weight' in name]
    assert len(kernels) == 10
    assert {decays[name] for name in kernels} == {0.0}
    assert {decays[name] for name in decays if name.endswith(('branch_norm.weight', 'fc.weight'))} == {0.01}
    # The hook is gone with the training.
    sample = NoiseDataset()[0]
    losses = runner.model(sample['inputs'][None], [sample['data_samples']], mode='loss')
    assert list(losses) == ['loss']


class Snapshot(Hook):
    """Keeps a copy of the model as training starts."""

    def before_train(self, runner):
        self.model = copy.deepcopy(runner.model)


def test_one_step_descends_the_sum_of_both_losses(tmp_path):
    def train(hooks, weight_decay):
        optimizer = dict(type='SGD', lr=0.1, weight_decay=weight_decay)
        wrapper = dict(optimizer=optimizer, paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0))
        runner = make_runner(
            tmp_path / str(len(hooks)),
            hooks,
            FIXED_STATISTICS,
            optim_wrapper=wrapper,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
        )
        start = Snapshot()
        runner.register_hook(start)
        runner.train()
        return start.model, runner.model

    start, plain = train([], 0.0)
    _, penalised = train([CustomL2Hook(weight_decay=0.5)], 0.0)
    for name, block in start.named_modules():
        if isinstance(block, RepVGGBlock):
            (0.25 * custom_l2(block)).backward()
            for branch in ('branch_3x3', 'branch_1x1'):
                key = f'{name}.{branch}.conv.weight'
                moved = plain.get_parameter(key) - penalised.get_parameter(key)
                torch.testing.assert_close(moved, 0.1 * start.get_parameter(key).grad, rtol=1e-3, atol=1e-6)


def test_hook_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r'needs a model with trainable RepVGG blocks in train form.*ImageClassifier'):
        make_runner(tmp_path / 'a', [CustomL2Hook()], backbone=dict(deploy=True)).train()
    sgd = dict(type='SGD', lr=0.01)
    with pytest.raises(ValueError, match='takes the place of weight decay, and the optimizer has none'):
        make_runner(tmp_path / 'b', [CustomL2Hook()], optim_wrapper=dict(optimizer=sgd)).train()
    one_group = dict(optimizer=dict(sgd, weight_decay=0.1))
    with pytest.raises(ValueError, match=r'a group for each parameter.*set optim_wrapper.paramwise_cfg'):
        make_runner(tmp_path / 'c', [CustomL2Hook()], optim_wrapper=one_group).train()
    with pytest.raises(ValueError, match='weight_decay must be greater than 0, or None'):
        CustomL2Hook(weight_decay=0)
