"""Compiled training: the same steps, the same keys, and nothing uncompiled in silence."""

import itertools
import socket
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import IterTimerHook
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny_runner import NoiseDataset, make_model_config, make_runner
from tool_runs import SMALL, succeed_here
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from mmrepvgg import load_config
from mmrepvgg.engine.compilation import CompilationError, CompileHook, explaining_compilation
from mmrepvgg.engine.training import train
from mmrepvgg.models.backbone import RepVGG

# Forward and backward are captured as for the default backend, but no C++ is written: that takes a second.
CAPTURE = dict(type='mmrepvgg.CompileHook', backend='aot_eager')
COUNT = itertools.count()


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


def count_graphs() -> int:
    return torch._dynamo.utils.counters['stats']['unique_graphs']


def run(folder: Path, hooks: list, **options) -> Runner:
    """Train and validate for 2 epochs of 3 batches, of which the last one is smaller."""
    loaders = [
        DataLoader(Subset(NoiseDataset(), range(size)), batch_size=12, collate_fn=pseudo_collate) for size in (32, 20)
    ]
    (folder := folder / str(next(COUNT))).mkdir()
    settings = dict(
        train_dataloader=loaders[0],
        val_dataloader=loaders[1],
        val_cfg=dict(),
        val_evaluator=dict(type='Accuracy', topk=1),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.01),
            paramwise_cfg=dict(bias_decay_mult=0.0),
            accumulative_counts=2,
            clip_grad=dict(max_norm=1.0),
        ),
    )
    runner = make_runner(folder, hooks, **settings | options)
    with explaining_compilation():
        runner.train()
    return runner


@pytest.mark.parametrize('branches', ['separate', 'merged'])
def test_the_steps_are_the_same(tmp_path, branches):
    """With EMA, custom L2, accumulation, clipping, a smaller last batch and validation."""
    names = ('mmrepvgg.ChannelsLastHook', 'mmrepvgg.CustomL2Hook')
    hooks = [dict(type='EMAHook', momentum=0.1), *(dict(type=name) for name in names)]
    backbone = dict(branches=branches)
    plain = run(tmp_path, hooks, backbone=backbone)
    compiled = run(tmp_path, [CAPTURE, *hooks], backbone=backbone)
    # the trial, and one for each size; none for the validation
    assert count_graphs() == 3
    expected, found = (torch.load(r.message_hub.get_info('last_ckpt'), weights_only=False) for r in (plain, compiled))
    for part in ('state_dict', 'ema_state_dict'):
        assert list(found[part]) == list(expected[part])
        for key, value in expected[part].items():
            torch.testing.assert_close(found[part][key], value, atol=1e-6, rtol=1e-5)


def test_every_step_runs_compiled_and_no_validation(tmp_path):
    sizes: list[int] = []

    def count_runs(graph, examples):
        def compute(*inputs):
            sizes.extend(x.shape[0] for x in inputs if x.shape[1:] == (3, 32, 32))  # none in the trial
            return graph(*inputs)

        return compute

    runner = run(tmp_path, [dict(type='mmrepvgg.CompileHook', backend=count_runs)])
    assert sizes == [12, 12, 8] * 2
    # the first step, with the compilation in it, is left out of the estimate of the time that remains
    (timer,) = (hook for hook in runner.hooks if isinstance(hook, IterTimerHook))
    assert timer.start_iter == 1
    times = runner.message_hub.get_scalar('train/time').data[0]
    assert timer.time_sec_tot == pytest.approx(sum(times[1:]))


def test_inside_ddp(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        plain, wrapped = (MODELS.build(make_model_config()) for _ in range(2))
        wrapped.load_state_dict(plain.state_dict())
        expected = run(tmp_path, [], model=plain)
        found = run(tmp_path, [CAPTURE], model=MMDistributedDataParallel(wrapped))
    finally:
        torch.distributed.destroy_process_group()
    assert count_graphs() == 3
    for key, value in expected.model.state_dict().items():
        torch.testing.assert_close(found.model.module.state_dict()[key], value, atol=1e-6, rtol=1e-5)


def test_too_many_sizes_are_an_error(tmp_path):
    with (
        torch._dynamo.config.patch(recompile_limit=1),
        pytest.raises(CompilationError, match='compiled 1 times, which is the limit: .* or leave out `compile`'),
    ):
        run(tmp_path, [CAPTURE])


def test_and_so_they_are_where_graphs_may_break(tmp_path):
    with torch._dynamo.config.patch(recompile_limit=1), pytest.raises(CompilationError, match='which is the limit'):
        run(tmp_path, [CAPTURE | dict(fullgraph=False)])


class RepVGGThatPrints(RepVGG):
    def forward(self, x: Tensor):
        torch._dynamo.graph_break()
        return super().forward(x)


def test_what_is_no_graph_is_an_error(tmp_path):
    model = MODELS.build(make_model_config())
    model.backbone.__class__ = RepVGGThatPrints
    with pytest.raises(CompilationError, match='can not be compiled: .*graph_break.*; leave out `compile`'):
        run(tmp_path, [CAPTURE], model=model)


@pytest.mark.parametrize(
    ('backbone', 'name'),
    [
        (dict(quantization=dict(granularity='per-tensor')), 'quantization-aware training'),
        (dict(norm_cfg=dict(type='SyncBN')), 'SyncBN'),
        (dict(with_cp=True), 'with_cp'),
    ],
)
def test_refusals(tmp_path, backbone, name):
    model = MODELS.build(make_model_config(backbone))
    with pytest.raises(ValueError, match=f'`compile` does not go together with {name}; leave out one of them'):
        CompileHook(backend='aot_eager').before_train(type('Run', (), dict(model=model)))


def test_a_model_without_backbone(tmp_path):
    with pytest.raises(ValueError, match='`compile` needs a model with a backbone, got Linear'):
        CompileHook().before_train(type('Run', (), dict(model=nn.Linear(1, 1))))


def test_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    with (
        torch._inductor.config.patch({'cpp.cxx': (None, str(tmp_path / 'none'))}),
        pytest.raises(CompilationError, match='nothing can be compiled on this machine: .*; install a C.. compiler'),
    ):
        CompileHook().before_train(type('Run', (), dict(model=MODELS.build(make_model_config()))))


@pytest.fixture
def cfg(digit_images) -> Config:
    cfg = load_config(str(SMALL))
    cfg.train_dataloader.dataset.update(data_root=str(digit_images), indices=64)
    cfg.val_dataloader.dataset.update(data_root=str(digit_images), indices=20)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return cfg


def test_a_setting_of_the_config(cfg, tmp_path):
    cfg.compile = dict(backend='aot_eager')
    train(cfg, str(tmp_path / 'work'))
    assert count_graphs() == 2
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert 'compiled: the first step took' in log.read_text()


def test_a_setting_that_means_nothing(cfg, tmp_path):
    cfg.compile = 'inductor'
    with pytest.raises(ValueError, match="compile of the config must be True, False or a dict of arguments, got 'ind"):
        train(cfg, str(tmp_path / 'work'))


def test_the_command(digit_images, tmp_path):
    """With the compiler itself, in mixed precision; and the switch of what was trained."""
    settings = [
        f'train_dataloader.dataset.data_root={digit_images}',
        f'val_dataloader.dataset.data_root={digit_images}',
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.indices=128',
        'model.backbone.arch.num_blocks=[1,1]',
        'model.backbone.arch.width_factor=[0.25,0.25]',
        *(f'model.backbone.{name}' for name in ('strides=[2,2]', 'dilations=[1,1]', 'out_indices=[1]')),
    ]
    options = ('--compile', '--amp', '--work-dir', 'work', '--cfg-options', *settings)
    assert succeed_here('train', SMALL, *options, cwd=tmp_path).endswith('work/epoch_1.pth\n')
    assert count_graphs() == 2
    succeed_here('reparameterize', SMALL, 'work/epoch_1.pth', 'deploy.pth', *options[4:], cwd=tmp_path)
