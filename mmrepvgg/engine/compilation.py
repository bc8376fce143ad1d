"""Compiled training: the forward and backward pass of the backbone as one graph, by torch.compile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook, IterTimerHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from ..models.blocks import RepVGGBlock
from ..models.fake_quant import find_quantizers


class CompilationError(RuntimeError):
    """The network can't be compiled, or nothing can be on this machine."""


class CompileHook(Hook):
    """Compile the backbone for training. Validation runs as before, and the keys of checkpoints stay as they are.

    The backbone becomes one graph for the size of the batches. Another size, such as that of a smaller last batch, is
    compiled when it comes. What can't be compiled is an error: nothing runs uncompiled in silence. The hook works for
    any model with a ``backbone`` (classifier, segmentor, detector), inside DDP, with mixed precision, gradient
    accumulation, EMA and custom L2.

    Args:
        **options: Arguments of :func:`torch.compile`. Default: ``dynamic=False, fullgraph=True``.

    Raises:
        ValueError: When training starts, if the model has no backbone, or one that can't be one graph.
        CompilationError: When training starts, if nothing can be compiled on this machine.
    """

    # It compiles after the hooks that run the model before training, such as QuantizationAwareHook.
    priority = 'VERY_LOW'

    def __init__(self, **options: Any):
        self.options = {'dynamic': False, 'fullgraph': True, **options}
        self._backbone: nn.Module | None = None
        self._begin: float | None = None

    # mmengine calls it after EMAHook has copied the model, and after the checkpoint is loaded.
    def before_train(self, runner: Runner) -> None:
        from torch._inductor.codecache import cache_dir  # half a second, which only compiled trainings need

        self._backbone = _find_backbone(getattr(runner.model, 'module', runner.model))
        self._try_compiler(_get_device(self._backbone))
        # in place: torch.compile(backbone) would give a module with other keys
        self._backbone.compile(**self.options)
        self._compiled_call = self._backbone._compiled_call_impl
        self._begin = time.monotonic()
        print_log(
            'compiling the backbone: the first step may take some minutes, and less when its result is in the cache, '
            f'{cache_dir()} (TORCHINDUCTOR_CACHE_DIR sets another folder)',
            'current',
        )

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if self._begin is None:
            return
        print_log(f'compiled: the first step took {time.monotonic() - self._begin:.1f} s', 'current')
        self._begin = None
        # this step says nothing about the time that remains
        for hook in runner.hooks:
            if isinstance(hook, IterTimerHook):
                hook.time_sec_tot, hook.start_iter = 0, runner.iter + 1

    # To compile the evaluation, too, would take as long again, for each size of its batches.
    def before_val(self, runner: Runner) -> None:
        if self._backbone is not None:
            self._backbone._compiled_call_impl = None

    def after_val(self, runner: Runner) -> None:
        if self._backbone is not None:
            self._backbone._compiled_call_impl = self._compiled_call

    def after_train(self, runner: Runner) -> None:
        self.before_val(runner)
        self._backbone = None

    def _try_compiler(self, device: torch.device) -> None:
        try:
            torch.compile(_compute_something, **self.options)(torch.ones(8, device=device))
        except TorchDynamoException as error:
            raise CompilationError(
                f'nothing can be compiled on this machine: {_shorten(error)}; install a C++ compiler (such as g++) and '
                'the header files of Python, or leave out `compile`'
            ) from None


def add_compilation(cfg: Config, options: bool | dict[str, Any]) -> None:
    """Let ``cfg`` compile the backbone, and not the whole training step as mmengine's ``compile`` would.

    mmengine compiles ``train_step``: the preparation of the images, the loss, the optimizer and its schedules with it.
    There the graph breaks, and parts of it are compiled again and again.
    """
    if not isinstance(options, (bool, dict)):
        raise ValueError(f'compile of the config must be True, False or a dict of arguments, got {options!r}')
    hook = {'type': 'mmrepvgg.CompileHook', **(options if isinstance(options, dict) else {})}
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]


@contextmanager
def explaining_compilation() -> Iterator[None]:
    """Change torch's errors about compilation to a :class:`CompilationError` of one line."""
    try:
        # with fullgraph=False torch would go on uncompiled when it has compiled too many graphs
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            yield
    except FailOnRecompileLimitHit:
        limit = torch._dynamo.config.recompile_limit
        raise CompilationError(
            f'the backbone was compiled {limit} times, which is the limit: each size of a batch takes a graph of its '
            'own. Train with fewer sizes, or leave out `compile`'
        ) from None
    except TorchDynamoException as error:
        raise CompilationError(f'the backbone can not be compiled: {_shorten(error)}; leave out `compile`') from error


def _find_backbone(model: nn.Module) -> nn.Module:
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(f'`compile` needs a model with a backbone, got {type(model).__name__}; leave it out')
    obstacles = {
        'quantization-aware training': find_quantizers(backbone),
        'SyncBN': [m for m in backbone.modules() if type(m).__name__ == 'SyncBatchNorm'],
        'with_cp': [m for m in backbone.modules() if isinstance(m, RepVGGBlock) and m.with_cp],
    }
    if found := [name for name, modules in obstacles.items() if modules]:
        raise ValueError(f'`compile` does not go together with {" and ".join(found)}; leave out one of them')
    return backbone


def _get_device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _compute_something(x: Tensor) -> Tensor:
    return (x + 1).relu()


def _shorten(error: Exception) -> str:
    """The first line of what torch says, and its explanation."""
    lines = [line.strip().rstrip('.') for line in str(error).splitlines() if line.strip()]
    explanations = [line.removeprefix('Explanation: ') for line in lines if line.startswith('Explanation: ')]
    return ': '.join([*lines[:1], *explanations[:1]]) or type(error).__name__
