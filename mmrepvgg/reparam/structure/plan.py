"""Which module's code has to change for each pattern, and which layer takes its place."""

import os.path
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx, nn

from .reading import read_steps
from .search import Path, search
from .steps import Step
from .tracing import find_closed, trace


@dataclass(frozen=True)
class Pattern:
    """Layers of a model that become one convolution. All names are from the model's root.

    Attributes:
        layers: Names of the layers, in the order in which they compute.
        place: The name that the convolution gets: that of the largest among the layers.
        scopes: The modules in whose code this happens.
        owner: The module that holds them all.
        is_chain: Whether the layers simply follow each other, so that no code needs to change.
    """

    layers: tuple[str, ...]
    place: str
    scopes: frozenset[str]
    owner: str
    is_chain: bool


@dataclass
class Plan:
    """What is to be done to a model, and what can't be done.

    Attributes:
        patterns: What becomes one convolution.
        left: Names of layers or operations that stay, each with the reason.
        closed: Modules whose code can't be followed.
    """

    patterns: list[Pattern] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    closed: dict[nn.Module, Exception] = field(default_factory=dict)


def make_plan(model: nn.Module) -> Plan:
    plan = Plan(closed=find_closed(model))
    for name, root in _find_roots(model, '', plan.closed):
        graph = trace(root, plan.closed)
        if isinstance(graph, Exception):
            continue
        found = search(read_steps(graph))
        done: set[Step] = set()
        for path in found.patterns.values():
            plan.patterns.append(describe_pattern(graph, name, path))
            done |= path.members
        for step, reason in found.reasons.items():
            if step not in done:
                plan.left[_name(name, step.origin)] = reason
    return plan


def _find_roots(module: nn.Module, name: str, closed: dict[nn.Module, Exception]) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules whose code can be followed."""
    if module not in closed and not isinstance(module, nn.ModuleList | nn.ModuleDict):
        yield name, module
        inner = [(path, each) for path, each in module.named_modules() if each in closed]
        tops = [(path, each) for path, each in inner if not any(path.startswith(f'{other}.') for other, _ in inner)]
        for path, each in tops:
            yield from _find_roots(each, _join(name, path), closed)
        return
    for path, child in module.named_children():
        yield from _find_roots(child, _join(name, path), closed)


def describe_pattern(graph: fx.GraphModule, name: str, path: Path) -> Pattern:
    nodes = sorted(step.origin for step in path.members)
    layers = [str(each.target) for each in nodes if each.op == 'call_module']
    place = max(layers, key=lambda target: _count_weights(graph.get_submodule(target)))
    is_chain = len(layers) == len(nodes)
    scopes = [_scope(each) for each in nodes]
    owner = _join(name, _common(scopes))
    names = tuple(_join(name, each) for each in layers)
    return Pattern(names, _join(name, place), frozenset(_join(name, each) for each in scopes), owner, is_chain)


def _count_weights(layer: nn.Module) -> int:
    is_conv = isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    return layer.weight.numel() if is_conv else -1  # type: ignore[union-attr, operator]


def _scope(node: fx.Node) -> str:
    if node.op == 'call_module':
        return str(node.target).rpartition('.')[0]
    stack = list(node.meta.get('nn_module_stack', {}))
    return stack[-1] if stack else ''


def _common(scopes: list[str]) -> str:
    parts = [scope.split('.') if scope else [] for scope in scopes]
    return '.'.join(os.path.commonprefix(parts))


def _join(name: str, path: str) -> str:
    return f'{name}.{path}' if name and path else name or path


def _name(name: str, node: fx.Node) -> str:
    return _join(name, str(node.target) if node.op == 'call_module' else f'{_scope(node)}:{node.name}')
