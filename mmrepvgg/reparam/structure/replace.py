"""Put the convolutions of a plan into a model."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .code import drop_code, take_code
from .constants import compute_constants
from .making import make_layer
from .maps import AffineMap
from .patterns import Pattern, describe_pattern
from .reading import read_steps
from .search import compute_map, list_candidates
from .tracing import Traced, trace
from .writing import remove_unused


@torch.no_grad()
def apply(model: nn.Module, patterns: list[Pattern]) -> None:
    """Put one layer for each of ``patterns`` into ``model``.

    Raises:
        OverflowError: If a number is too large for the dtype of its layer.
    """
    names = _lift(patterns)
    for owner in sorted(set(names.values()), key=lambda name: -name.count('.')):
        _rewrite(model, owner, [pattern for pattern, name in names.items() if name == owner])
    for pattern in patterns:
        if pattern not in names:
            _fill_places(model, pattern)


def _lift(patterns: list[Pattern]) -> dict[Pattern, str]:
    """The owner of each pattern whose code must change: one whose parts another owner takes in goes to that one."""
    names = {pattern: pattern.owner for pattern in patterns if not pattern.is_chain}
    changed = True
    while changed:
        changed = False
        for pattern, owner in names.items():
            for scope in pattern.scopes:
                for other, inner in names.items():
                    if inner != owner and _is_within(inner, owner) and _is_within(scope, inner):
                        names[other] = owner
                        changed = True
    return names


def _is_within(name: str, owner: str) -> bool:
    return not owner or name == owner or name.startswith(f'{owner}.')


def _rewrite(model: nn.Module, owner: str, patterns: list[Pattern]) -> None:
    """Let the code of ``owner`` call one layer for each pattern."""
    module = model.get_submodule(owner)
    prefix = f'{owner}.' if owner else ''
    opened = _find_opened(prefix, patterns)
    traced = trace(module, [child for name, child in module.named_modules() if name and name not in opened])
    if not isinstance(traced, Traced):
        return  # it takes apart what a part of it gives; the second look names what is left
    graph, before = traced.graph, _find_names(traced.graph)
    flat = [pattern for pattern in patterns if pattern.is_flat]
    steps = read_steps(graph, [name.removeprefix(prefix) for pattern in flat for name in pattern.layers])
    found = {describe_pattern(graph, owner, path).key: (step, path) for step, path in list_candidates(steps)}
    _keep_numbers(module, graph, {name.removeprefix(prefix) for pattern in patterns for name in pattern.parts})
    calls, replaced = {}, set()
    for number, pattern in enumerate(patterns):
        if pattern.key not in found:
            continue  # the code of the owner alone shows another structure; the second look names it
        step, path = found[pattern.key]
        layer = _make_like(compute_map(path, step, steps), model, pattern)
        graph.add_submodule(f'_fused_{number}', layer)
        # where the first branch reads the source: later code may overwrite it
        with graph.graph.inserting_before(min(member.origin for member in path.members)):
            fused = graph.graph.call_module(f'_fused_{number}', (path.source.origin,))
        step.origin.replace_all_uses_with(fused)
        replaced |= {member.origin for member in path.members}
        calls[fused] = pattern.place.removeprefix(prefix), layer
    remove_unused(graph, replaced)
    for node, (place, layer) in calls.items():
        node.target = place
        _set(module, place, layer)
    places = {place for place, _ in calls.values()}
    _remove(module, {name for name in before if name.rpartition('.')[0] not in places}, _find_names(graph))
    _keep_constants(module, graph)
    take_code(module, graph.graph)
    for name in opened - places:
        drop_code(module.get_submodule(name))


def _find_opened(prefix: str, patterns: list[Pattern]) -> set[str]:
    """The modules within an owner whose code is taken into that of the owner."""
    inner = {f'{scope}.'.removeprefix(prefix) for pattern in patterns for scope in pattern.scopes}
    parts = [scope.split('.')[:-1] for scope in inner if scope not in ('', '.')]
    return {'.'.join(each[:depth]) for each in parts for depth in range(1, len(each) + 1)}


def _remove(module: nn.Module, before: set[str], after: set[str]) -> None:
    """Remove the layers and numbers that the code of ``module`` does not use any more."""
    unused = before - after
    for name in sorted(unused):
        parent, _, leaf = name.rpartition('.')
        if parent in unused:  # the numbers of a layer that goes
            continue
        part = module.get_submodule(parent)
        numbers = [each for each, _ in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))]
        if parent and leaf in numbers and not any(f'{parent}.{each}' in after for each in numbers):
            _set(module, parent, _keep_children(part))
        elif hasattr(part, leaf):
            if leaf in part._modules:
                _set(module, name, nn.Identity())  # under its other names
            delattr(part, leaf)


def _keep_constants(module: nn.Module, graph: fx.GraphModule) -> None:
    """Tensors that the code of ``module`` makes in each call are made once by the trace."""
    for node in graph.graph.find_nodes(op='get_attr'):
        if '.' not in str(node.target) and not hasattr(module, str(node.target)):
            module.register_buffer(str(node.target), getattr(graph, str(node.target)), persistent=False)


def _keep_numbers(module: nn.Module, graph: fx.GraphModule, layers: set[str]) -> None:
    """A number that the code computes from the weights of layers, a penalty for example, stays what it is."""
    constants = compute_constants(graph)
    for node in constants.list_final():
        parts = {name.rpartition('.')[0] for name in constants.origins[node]}
        if parts.isdisjoint(layers) or not constants.is_number(node):
            continue
        numbers = itertools.chain([''], itertools.count(2))
        name = next(f'fused_number{each}' for each in numbers if not hasattr(module, f'fused_number{each}'))
        for owner in (module, graph):
            owner.register_buffer(name, constants.values[node].detach().clone())
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))


def _keep_children(layer: nn.Module) -> nn.Module:
    """What is in ``layer``, an activation for example, under its name."""
    kept = nn.Module()
    for name, child in layer.named_children():
        kept.add_module(name, child)
    return kept


def _find_names(graph: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in graph.graph.nodes if node.op in ('call_module', 'get_attr')}


def _fill_places(model: nn.Module, pattern: Pattern) -> None:
    """Put the one layer into one place, and nothing into the others: the code calls them all as before."""
    assert pattern.compute is not None
    layer = _make_like(pattern.compute(), model, pattern)
    for name in pattern.layers:
        if name != pattern.place:
            _set(model, name, nn.Identity())
    for name in pattern.norms:
        _set(model, name, _drop_norm(model.get_submodule(name)))
    _set(model, pattern.place, layer)


def _drop_norm(module: nn.Module) -> nn.Module:
    """What a module computes behind its batch norm."""
    traced = trace(module, list(module.children()))
    assert isinstance(traced, Traced)
    (norm,) = traced.graph.graph.find_nodes(op='call_function', target=F.batch_norm)
    norm.replace_all_uses_with(norm.args[0])
    remove_unused(traced.graph)
    kept = _keep_children(module)
    take_code(kept, traced.graph.graph)
    return kept


def _make_like(joined: AffineMap, model: nn.Module, pattern: Pattern) -> nn.Module:
    """The layer of a map, in the dtype and memory format of the one whose place it takes."""
    parts: list[Tensor] = [each for name in pattern.layers for each in model.get_submodule(name).parameters()]
    parts += [each for name, each in model.named_parameters() if name in pattern.numbers]
    parts += [each for name, each in model.named_buffers() if name in pattern.numbers]
    largest = max(parts, key=lambda each: each.numel())
    layer: Any = make_layer(joined, largest.dtype)
    if largest.dim() == 4 and largest.is_contiguous(memory_format=torch.channels_last):
        layer.to(memory_format=torch.channels_last)
    return layer.requires_grad_(any(each.requires_grad for each in parts))


def _set(module: Any, name: str, layer: nn.Module) -> None:
    """Put ``layer`` under a name, and under all other names of what stands there."""
    parent, _, leaf = name.rpartition('.')
    old = getattr(module.get_submodule(parent), leaf, None)
    for part in module.modules() if old is not None else ():
        for key, child in part._modules.items():
            if child is old:
                part._modules[key] = layer
    setattr(module.get_submodule(parent), leaf, layer)
