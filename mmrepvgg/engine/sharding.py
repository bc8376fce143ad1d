"""Training whose weights, gradients and optimizer states are shared out over the processes (FSDP)."""

from typing import Any

import torch
from mmengine._strategy import fsdp
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import FlexibleRunner
from torch import Tensor, nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, FullyShardedDataParallel

from ..models.blocks import RepVGGBlock
from ..models.config_types import get_type_name
from .logs import shorten_console
from .resuming import Resumable
from .saving import WholeCheckpoints

# Hooks that copy the model, compile it, or compute with its weights outside the forward pass
_WHOLE_WEIGHTS = ('CompileHook', 'CustomL2Hook', 'QuantizationAwareHook', 'CalibrateInsertedNormsHook', 'EMAHook')


def wrap_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """The wrapping policy of FSDP: the weights of a block are gathered together. torch gives the arguments."""
    return recurse or isinstance(module, RepVGGBlock)


class FSDPStrategy(fsdp.FSDPStrategy):
    """mmengine's strategy, with the blocks as its units, and mended for today's versions of torch.

    Its checkpoints have the keys and the whole tensors of an ordinary training, so every command takes them. On CPUs it
    runs, too, for tests. A config asks for it by ``strategy = dict(type='mmrepvgg.FSDPStrategy')``.

    Args:
        model_wrapper: Arguments of mmengine's ``MMFullyShardedDataParallel``.
        **kwargs: Other arguments of mmengine's ``FSDPStrategy``.
    """

    def __init__(self, *, model_wrapper: dict[str, Any] | None = None, **kwargs: Any):
        wrapper = dict(type='MMFullyShardedDataParallel', auto_wrap_policy=wrap_blocks)
        super().__init__(model_wrapper={**wrapper, **(model_wrapper or {})}, state_dict_cfg='full', **kwargs)
        if not torch.cuda.is_available():
            self.model_wrapper['device_id'] = torch.device('cpu')
            # With it, torch 2.12 saves views of memory that it has freed: nothing needs to be copied to the CPU.
            self.state_dict_config = FullStateDictConfig(offload_to_cpu=False, rank0_only=True)
            self.optim_state_dict_config = FullOptimStateDictConfig(offload_to_cpu=False, rank0_only=True)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        return shorten_console(super().build_logger(*args, **kwargs))

    def model_state_dict(self) -> dict[str, Tensor]:
        # FSDP leaves attributes at its tensors, with which they are more than tensors in a file: it would be refused
        return {key: value.detach() for key, value in super().model_state_dict().items()}

    def load_optim_state_dict(self, state_dict: dict[str, Any]) -> None:
        # mmengine gives the arguments in the order of torch 2.0
        optimizer = self.optim_wrapper.optimizer
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(self.model, optimizer, state_dict)
        )


def check_sharded(cfg: Config) -> None:
    """Refuse what would fail, or compute something else, where a process holds parts of the weights.

    Raises:
        ValueError: If the config has gradient clipping or a hook that needs whole weights.
    """
    if cfg.optim_wrapper.get('clip_grad'):
        raise ValueError('FSDP has no gradient clipping here: each process would clip by the norm of its own parts')
    for hook in (*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())):
        if hook is not None and (name := get_type_name(hook.get('type'))) in _WHOLE_WEIGHTS:
            raise ValueError(
                f'{name} needs whole weights, and with FSDP each process holds parts; leave one of them out'
            )


class StrategyRunner(Resumable, WholeCheckpoints, FlexibleRunner):
    """mmengine's runner of strategies, whose checkpoints say the right epoch.

    mmengine's own replaces what its ``CheckpointHook`` says by the epoch and the iteration of the moment. After a best
    checkpoint the hook saves the latest one a second time, and that would be resumed an epoch too late.
    """

    def save_checkpoint(self, *args: Any, meta: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._given_meta = dict(meta or {})
        super().save_checkpoint(*args, meta=meta, **kwargs)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        if fn_name == 'before_save_checkpoint':
            kwargs['checkpoint']['meta'].update(self._given_meta)
        super().call_hook(fn_name, **kwargs)


def make_strategy_runner(cfg: Config) -> Any:
    """The runner of a config with a ``strategy``, which has the interface of mmengine's Runner.

    Its model is built here, so that it can be checked before the training.

    Raises:
        ValueError: If the config has no launcher, or something that does not work with its strategy.
    """
    if cfg.launcher == 'none':
        raise ValueError('a config with a strategy trains in several processes; give `launcher`')
    if get_type_name(cfg.strategy.type) == 'FSDPStrategy':
        check_sharded(cfg)
    runner = StrategyRunner.from_cfg(cfg)
    runner.model = runner.strategy.build_model(runner.model)
    return runner
