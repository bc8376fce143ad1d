"""The head at the start of a fine-tuning: if the weights have another one, it starts anew, and the rest is loaded."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


class HeadStartHook(Hook):
    """Takes a head that does not fit out of loaded weights, and says so in one line of the log.

    mmengine would list the tensors as an error of two lists, and load the rest all the same.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint.get('state_dict') or {}
        # sharded weights are left to mmengine, and so are keys with the prefix of a wrapper
        if runner._resume or hasattr(runner, 'strategy') or not any(key.startswith('backbone.') for key in weights):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own = {key: value for key, value in model.state_dict().items() if key.startswith('head.')}
        anew = [key for key in own if key not in weights or weights[key].shape != own[key].shape]
        left = [key for key in weights if key.startswith('head.') and key not in own]
        if not anew and not left:
            return
        told = [_describe(key, weights.get(key), own[key]) for key in anew[:1]]
        told += [f'{len(left)} tensors of a head are not in this model ({left[0]}, ...)'] if left else []
        runner.logger.info(
            f'fine-tuning: {" and ".join(told)}; {"the head starts anew, and " if anew else ""}all other weights are '
            'loaded'
        )
        for key in left:
            del weights[key]
        weights.update({key: own[key] for key in anew})


def _describe(key: str, found: Any, own: Any) -> str:
    if found is None:
        return f'the weights have no {key}'
    return f'{key} is {tuple(found.shape)} in the weights and {tuple(own.shape)} here'
