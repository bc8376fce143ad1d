"""Which layers of a model become one convolution, and in which module's code that happens."""

import os.path
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .layers import FUSED_LAYERS, is_layer
from .reading import read_steps
from .search import Path, search
from .tracing import CONTAINERS, Traced, find_closed, trace

_STEERED = 'an argument of `forward` that may be left out changes what {} computes'


@dataclass(frozen=True)
class Pattern:
    """Layers of a model that become one convolution. All names are from the model's root.

    Attributes:
        layers: Names of the layers, in the order in which they compute.
        place: The name that the convolution gets: that of the largest among the layers.
        scopes: The modules in whose code this happens.
        owner: The module that holds them all, in whose code one call takes the place of theirs.
        is_chain: Whether the layers simply follow each other, so that no code needs to change.
        num_steps: Number of steps of the graph: the layers, and what joins them.
    """

    layers: tuple[str, ...]
    place: str
    scopes: frozenset[str]
    owner: str
    is_chain: bool
    num_steps: int

    @property
    def key(self) -> tuple[tuple[str, ...], frozenset[str], int]:
        """What tells it from others, in whichever module's code it is looked for."""
        return self.layers, self.scopes, self.num_steps


@dataclass
class Plan:
    """What is to be done to a model, and what can't be done.

    Attributes:
        patterns: What becomes one convolution.
        branches: Sums of parallel linear branches that stay, each with the reason.
        layers: Other layers that stay, each with the reason.
        not_followed: Modules whose code can't be followed, each with what stopped it.
    """

    patterns: list[Pattern] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    not_followed: dict[str, str] = field(default_factory=dict)


def make_plan(model: nn.Module, known: Collection[nn.Module] = ()) -> Plan:
    """Find what can be fused.

    Args:
        model: The model. It is not changed.
        known: Modules in it that are taken as they are.
    """
    planner = _Planner(model, known)
    planner.visit('', model)
    plan = planner.plan
    # a module that is only a wrapper, and one without linear layers, is no loss
    plan.not_followed = {
        name: planner.closed.reasons[module]
        for name, module in model.named_modules()
        if module in planner.closed.reasons and any(isinstance(each, _BatchNorm) for each in module.children())
    }
    return plan


class _Planner:
    def __init__(self, model: nn.Module, known: Collection[nn.Module]):
        self.model, self.known = model, known
        self.closed, self.plan = find_closed(model, known), Plan()
        self.seen: set[nn.Module] = set()

    def visit(self, name: str, module: nn.Module) -> None:
        """Look at the code of a module by itself, and then at those in it that are one step of this code."""
        if module in self.seen or module in self.known or not _is_block(module):
            return
        self.seen.add(module)
        if module in self.closed.reasons or isinstance(module, CONTAINERS):
            for path, child in module.named_children():
                self.visit(_join(name, path), child)
            return
        single = self.closed.modules
        traced = trace(module, single)
        if isinstance(traced, Traced):
            # what is called several times is fused by itself, once
            again = {each for each, number in traced.num_calls.items() if number > 1 and _is_block(each)}
            if again:
                single = single | again
                traced = trace(module, single)
        if isinstance(traced, Exception):
            return
        self._read(name, traced.graph)
        for path, part in _find_tops(module, single):
            self.visit(_join(name, path), part)

    def _read(self, name: str, graph: fx.GraphModule) -> None:
        found = search(read_steps(graph))
        for step, reason in found.branches.items():
            self.plan.branches[_name(name, step.origin)] = reason
        for step, reason in found.layers.items():
            self.plan.layers[_name(name, step.origin)] = reason
        for step, path in found.patterns.items():
            pattern = describe_pattern(graph, name, path)
            owner = pattern.owner if pattern.is_chain else self._find_owner(name, pattern.owner)
            if owner is None:
                reason = _STEERED.format(type(self.model.get_submodule(pattern.owner)).__name__)
                left = self.plan.branches if isinstance(step.does, float) else self.plan.layers
                left[_name(name, step.origin)] = reason
            else:
                self.plan.patterns.append(replace(pattern, owner=owner))

    def _find_owner(self, root: str, owner: str) -> str | None:
        """The smallest module around ``owner`` whose code does not depend on what its caller leaves out."""
        while self.model.get_submodule(owner) in self.closed.steered:
            if owner == root:
                return None
            owner = owner.rpartition('.')[0]
        return owner


def _is_block(module: nn.Module) -> bool:
    is_script = isinstance(module, torch.jit.ScriptModule)
    return not is_script and not is_layer(module) and any(True for _ in module.children())


def _find_tops(module: nn.Module, single: Collection[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules in ``module`` that are one step of its code, and have parts."""
    for name, child in module.named_children():
        if child in single:
            yield name, child
        else:
            for path, part in _find_tops(child, single):
                yield _join(name, path), part


def describe_pattern(graph: fx.GraphModule, name: str, path: Path) -> Pattern:
    """The pattern of a path in the graph of the module ``name``."""
    nodes = sorted(step.origin for step in path.members)
    layers = [str(each.target) for each in nodes if each.op == 'call_module']
    place = max(layers, key=lambda target: _count_weights(graph.get_submodule(target)))
    scopes = [_scope(each) for each in nodes]
    return Pattern(
        tuple(_join(name, each) for each in layers),
        _join(name, place),
        frozenset(_join(name, each) for each in scopes),
        _join(name, _common(scopes)),
        len(layers) == len(nodes),
        len(nodes),
    )


def _count_weights(layer: nn.Module) -> int:
    return layer.weight.numel() if isinstance(layer, FUSED_LAYERS) else -1


def _scope(node: fx.Node) -> str:
    if node.op == 'call_module':
        return str(node.target).rpartition('.')[0]
    stack = list(node.meta.get('nn_module_stack', {}))
    return stack[-1] if stack else ''


def _common(scopes: list[str]) -> str:
    """The module that holds all of ``scopes``."""
    parts = [f'/{scope}'.replace('.', '/') for scope in scopes]
    return os.path.commonpath(parts).lstrip('/').replace('/', '.')


def _join(name: str, path: str) -> str:
    return f'{name}.{path}' if name and path else name or path


def _name(name: str, node: fx.Node) -> str:
    return _join(name, str(node.target) if node.op == 'call_module' else _join(_scope(node), node.name))
