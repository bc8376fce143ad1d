"""Which layers of a model become one convolution, and in which module's code that happens."""

import os.path
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .following import CONTAINERS, Follower, describe_error, uses_context
from .layers import FUSED_LAYERS
from .maps import AffineMap
from .part_reading import find_opened, find_read
from .reading import read_steps
from .search import Path, compute_map, search
from .steps import Constant
from .tracing import Traced, trace

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
        numbers: Names of parameters and buffers that its code uses beside the layers.
        is_flat: Whether its inputs are ``(N, C)``.
        norms: Modules whose own code is a batch norm of the chain, and other things: an activation, for example.
        compute: Gives the numbers of the convolution.
    """

    layers: tuple[str, ...]
    place: str
    scopes: frozenset[str]
    owner: str
    is_chain: bool
    num_steps: int
    numbers: tuple[str, ...]
    is_flat: bool
    norms: tuple[str, ...]
    compute: Callable[[], AffineMap] | None = field(default=None, compare=False)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the layers, and of what else has numbers in it: norms with an activation, layer scales."""
        return tuple(dict.fromkeys((*self.layers, *map(self._name_part, self.numbers))))

    def _name_part(self, number: str) -> str:
        """The module whose number it is, if that is not the block around the layers: then the number itself."""
        module = number.rpartition('.')[0]
        is_block = not module or any(name.startswith(f'{module}.') for name in (*self.layers, *self.scopes))
        return number if is_block else module

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from others, in whichever module's code it is looked for."""
        return self.layers, self.scopes, self.num_steps, self.numbers


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
    plan, reasons = planner.plan, planner.follower.reasons
    # a module that only calls others is no loss
    plan.not_followed = {
        name or type(module).__name__: reasons[module]
        for name, module in model.named_modules()
        if module in reasons and any(isinstance(each, _BatchNorm) for each in module.children())
    }
    return plan


class _Planner:
    def __init__(self, model: nn.Module, known: Collection[nn.Module]):
        self.model, self.follower, self.plan = model, Follower(model, known), Plan()
        self.seen: set[nn.Module] = set()
        self.steady: dict[str, bool] = {}
        self.told: set[nn.Module] = set()

    def visit(self, name: str, module: nn.Module) -> None:
        """Look at the code of a module by itself, and then at those in it that are one step of this code."""
        if module in self.seen or not self.follower.is_block(module):
            return
        self.seen.add(module)
        traced = Exception() if isinstance(module, CONTAINERS) else self.follower.follow(module)
        if isinstance(traced, Exception):
            if not isinstance(module, CONTAINERS):
                self.follower.reasons.setdefault(module, describe_error(traced))
            opened = set() if isinstance(module, CONTAINERS) else find_opened(module)
            self._visit_parts(name, module, set(module.children()) if opened is None else opened)
            return
        single = self.follower.single
        # what is called several times is fused by itself, once
        again = {each for each, number in traced.num_calls.items() if number > 1 and self.follower.is_block(each)}
        if again:
            single |= again
            traced = trace(module, single)
            assert isinstance(traced, Traced)
        self.told |= traced.told
        self._read(name, module, traced)
        for path, part in _find_tops(module, single, traced.num_calls.keys()):
            self.visit(_join(name, path), part)

    def _visit_parts(self, name: str, module: nn.Module, opened: Collection[nn.Module]) -> None:
        """Look at the modules in one that is not followed; of those whose parts it uses, at their parts."""
        for path, child in module.named_children():
            if child in opened:
                self._visit_parts(_join(name, path), child, opened)
            else:
                self.visit(_join(name, path), child)

    def _read(self, name: str, module: nn.Module, traced: Traced) -> None:
        graph = traced.graph
        # layers that other code calls, too
        single = [part for part in _reach(module, ()) if part in self.follower.single and [*part.children()]]
        inner = {part for each in single for part in each.modules() if part is not each}
        outside = _reach(module, single) & (_reach(self.model, [module]) | inner)
        steps = read_steps(graph, outside=outside)
        found = search(steps)
        for step, reason in found.branches.items():
            self.plan.branches[_name(name, step.origin)] = reason
        for step, reason in found.layers.items():
            self.plan.layers[_name(name, step.origin)] = reason
        for step, path in found.patterns.items():
            pattern = describe_pattern(graph, name, path)
            pattern = replace(
                pattern,
                is_chain=pattern.is_chain and all(map(self._is_norm_module, pattern.norms)),
                compute=partial(compute_map, path, step, steps),
            )
            obstacle = self._find_obstacle(name, pattern, path, traced)
            owner = pattern.owner if pattern.is_chain or obstacle else self._find_owner(name, pattern.owner)
            if owner != pattern.owner and _is_scaled_layer(path):
                continue  # a layer scale is not worth it to take a block into the code around it
            if owner is None:
                obstacle = _STEERED.format(type(self.model.get_submodule(pattern.owner)).__name__)
            if obstacle or owner is None:
                left = self.plan.branches if isinstance(step.does, float) else self.plan.layers
                left[_name(name, step.origin)] = obstacle or ''
            else:
                is_new = pattern.place.rpartition('.')[2] == 'fused_conv' and pattern.place not in pattern.layers
                place = self._find_free(pattern.place, is_new)
                self.plan.patterns.append(replace(pattern, owner=owner, place=place))

    def _find_obstacle(self, name: str, pattern: Pattern, path: Path, traced: Traced) -> str | None:
        """Why a pattern must stay that no graph shows."""
        layers = {self.model.get_submodule(each) for each in pattern.layers}
        for scope in pattern.scopes:
            if layers & find_read(self.model.get_submodule(scope)):
                return 'the code around it reads attributes of the layers'
        methods = {(_scope(step.origin), step.origin.meta.get('method', 'forward')) for step in path.members}
        public = sorted(
            {method for scope, method in methods if method != 'forward' and _join(name, scope) not in pattern.norms}
        )
        if public and (not pattern.is_chain or len(methods) > len({scope for scope, _ in methods})):
            return f'the method `{public[0]}` computes a part of it'
        if pattern.is_chain and traced.is_steered and name in pattern.scopes and not name:
            return _STEERED.format(type(self.model).__name__)
        return None

    def _is_norm_module(self, name: str) -> bool:
        """Whether the code of a module is a batch norm of its input, and what follows."""
        module = self.model.get_submodule(name)
        traced = trace(module, list(module.children()))
        if isinstance(traced, Exception) or traced.is_steered:
            return False
        norms = traced.graph.graph.find_nodes(op='call_function', target=F.batch_norm)
        return len(norms) == 1 and norms[0].args[0].op == 'placeholder' and len(norms[0].args[0].users) == 1

    def _find_free(self, place: str, is_new: bool) -> str:
        """The name, with a number if another pattern has it already."""
        taken = {pattern.place for pattern in self.plan.patterns}
        names = (place, *(f'{place}{number}' for number in range(2, len(taken) + 3)))
        known = {path for path, _ in self.model.named_modules(remove_duplicate=False)}
        known |= {path for path, _ in (*self.model.named_parameters(), *self.model.named_buffers())}
        return next(each for each in names if each not in taken and (not is_new or each not in known))

    def _find_owner(self, root: str, owner: str) -> str | None:
        """The smallest module around ``owner`` whose code does not depend on what its caller leaves out."""
        while not self._is_steady(owner):
            if owner == root:
                return None
            owner = owner.rpartition('.')[0]
        return owner

    def _is_steady(self, name: str) -> bool:
        if name not in self.steady:
            module = self.model.get_submodule(name)
            traced = trace(module, self.follower.single)
            is_fixed = module in self.told or uses_context(module)
            self.steady[name] = isinstance(traced, Traced) and not traced.is_steered and not is_fixed
        return self.steady[name]


def _reach(model: nn.Module, stops: Collection[nn.Module]) -> set[nn.Module]:
    """The modules in ``model``, without those that are reached only through one of ``stops``."""
    reached, left = set(), [model]
    stops = set(stops)
    while left:
        module = left.pop()
        if module not in reached and module not in stops:
            reached.add(module)
            left += module.children()
    return reached


def _is_scaled_layer(path: Path) -> bool:
    """Whether a path is one layer and constants, and nothing else."""
    return all(step.is_conv or step.is_nothing or isinstance(step.does, Constant) for step in path.members)


def _find_tops(
    module: nn.Module, single: Collection[nn.Module], called: Collection[nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """The largest modules in ``module`` that are one step of its code, or that its code does not call at all."""
    for name, child in module.named_children():
        if child in single or not any(part in called for part in child.modules()):
            yield name, child
        else:
            for path, part in _find_tops(child, single, called):
                yield _join(name, path), part


def describe_pattern(graph: fx.GraphModule, name: str, path: Path) -> Pattern:
    """The pattern of a path in the graph of the module ``name``."""
    nodes = sorted(step.origin for step in path.members)
    layers = [str(each.target) for each in nodes if each.op == 'call_module']
    scopes = [_scope(each) for each in nodes]
    place = max(layers, key=lambda target: _count_weights(graph.get_submodule(target)), default='')
    if not place or _count_weights(graph.get_submodule(place)) < 0:
        place = _find_place(graph, next(step.origin for step in path.members if step.is_conv))
    # norms that a module computes in its own code, which has nothing else of the pattern
    others = [_scope(step.origin) for step in path.members if not _is_norm_function(step.origin)]
    norms = {
        step
        for step in path.members
        if _is_norm_function(step.origin)
        and not any(f'{each}.'.startswith(f'{_scope(step.origin)}.') for each in others)
    }
    return Pattern(
        tuple(_join(name, each) for each in layers),
        _join(name, place),
        frozenset(_join(name, each) for each in scopes),
        _join(name, _common([*scopes, *(each.rpartition('.')[0] for each in layers)])),
        all(step.is_call or step.is_reshape or step in norms for step in path.members),
        len(nodes),
        tuple(sorted({_join(name, each) for step in path.members for each in step.parameters})),
        getattr(path.map, 'num_axes', None) == 0,
        tuple(sorted(_join(name, _scope(step.origin)) for step in norms)),
    )


def _is_norm_function(node: fx.Node) -> bool:
    return node.target is F.batch_norm and bool(_scope(node))


def _find_place(graph: fx.GraphModule, conv: fx.Node) -> str:
    """The name for a convolution that is no layer: that of the module whose code it is, if this does nothing else."""
    scope = _scope(conv)
    module = graph.get_submodule(scope)
    is_layer = hasattr(module, 'weight') and not any(True for _ in module.children())
    return scope if is_layer and scope else _join(scope, 'fused_conv')


def _count_weights(layer: nn.Module) -> int:
    return layer.weight.numel() if isinstance(layer, FUSED_LAYERS) else -1


def _scope(node: fx.Node) -> str:
    """The module in whose code a step is. A layer may have a name elsewhere."""
    stack = [path for path, _ in node.meta.get('nn_module_stack', {}).values()]
    if node.op == 'call_module':
        stack = stack[:-1]
    return stack[-1] if stack else ''


def _common(scopes: list[str]) -> str:
    """The module that holds all of ``scopes``."""
    parts = [f'/{scope}'.replace('.', '/') for scope in scopes]
    return os.path.commonpath(parts).lstrip('/').replace('/', '.')


def _join(name: str, path: str) -> str:
    return f'{name}.{path}' if name and path else name or path


def _name(name: str, node: fx.Node) -> str:
    return _join(name, str(node.target) if node.op == 'call_module' else _join(_scope(node), node.name))
