"""Modules that return their input in eval mode, such as stochastic depth."""

from typing import Any

from torch import fx, nn


def returns_its_input(module: nn.Module) -> bool:
    """Whether the code of ``module`` does nothing in eval mode.

    Modules of torch, and those with parts or numbers, count as doing something.
    """
    if 'forward' in vars(module):
        return False
    has_parts = any(True for _ in module.children()) or bool(module.state_dict())
    if has_parts or type(module).__module__.startswith('torch.nn.'):
        return False
    before = dict(vars(module))
    module.training = False
    try:
        nodes: Any = list(fx.Tracer().trace(module).nodes)
        keeps = vars(module).keys() != before.keys() or any(
            value is not vars(module)[name] for name, value in before.items() if name != 'training'
        )
    except Exception:  # the module's own code may raise anything when it gets no numbers
        return False
    finally:
        vars(module).clear()
        vars(module).update(before)
    return not keeps and [node.op for node in nodes] == ['placeholder', 'output'] and nodes[1].args == (nodes[0],)
