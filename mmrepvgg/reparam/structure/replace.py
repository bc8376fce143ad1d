"""Put the convolutions of a plan into a model."""

from functools import reduce
from typing import Any

import torch
from torch import fx, nn

from .code import take_code
from .layers import describe
from .maps import ConvMap, chain, make_layer
from .plan import Pattern, Plan, describe_pattern
from .reading import read_steps
from .search import search
from .tracing import trace


@torch.no_grad()
def apply(model: nn.Module, plan: Plan) -> None:
    """Change ``model`` in place as ``plan`` says."""
    names = _lift(plan.patterns)
    for owner in sorted(set(names.values()), key=lambda name: -name.count('.')):
        _rewrite(model, owner, [pattern for pattern, name in names.items() if name == owner])
    for pattern in plan.patterns:
        if pattern.is_chain:
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
    module = model.get_submodule(owner)
    prefix = f'{owner}.' if owner else ''
    opened = set()
    for pattern in patterns:
        for scope in pattern.scopes:
            parts = scope[len(prefix) :].split('.')
            opened |= {'.'.join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    single = [child for name, child in module.named_modules() if name and name not in opened]
    graph = trace(module, single)
    assert isinstance(graph, fx.GraphModule)
    before = _find_names(graph)
    wanted = {pattern.layers: pattern for pattern in patterns}
    for step, path in search(read_steps(graph)).patterns.items():
        pattern = wanted.get(describe_pattern(graph, owner, path).layers)
        if pattern is None:
            continue
        assert isinstance(path.map, ConvMap)
        example = module.get_submodule(pattern.place[len(prefix) :])
        layer, place = _make_like(path.map, example), pattern.place[len(prefix) :]
        _set(module, place, layer)
        _set(graph, place, layer)
        with graph.graph.inserting_after(step.origin):
            fused = graph.graph.call_module(place, (path.source.origin,))
        step.origin.replace_all_uses_with(fused)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    for name in before - _find_names(graph):
        parent, _, leaf = name.rpartition('.')
        part = module.get_submodule(parent)
        if leaf not in part._modules and parent:  # a layer without its numbers
            _set(module, parent, part := _keep_children(part))
        if hasattr(part, leaf):
            delattr(part, leaf)
    take_code(module, graph.graph)


def _keep_children(layer: nn.Module) -> nn.Module:
    """What is in ``layer``, an activation for example, under its name."""
    kept = nn.Module()
    for name, child in layer.named_children():
        kept.add_module(name, child)
    return kept.train(layer.training)


def _find_names(graph: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in graph.graph.nodes if node.op in ('call_module', 'get_attr')}


def _fill_places(model: nn.Module, pattern: Pattern) -> None:
    """Put the convolution into one place, and nothing into the others: the code calls them all as before."""
    maps = [describe(model.get_submodule(name)) for name in pattern.layers]
    joined = reduce(chain, maps)  # type: ignore[arg-type]
    assert isinstance(joined, ConvMap)
    _set(model, pattern.place, _make_like(joined, model.get_submodule(pattern.place)))
    for name in pattern.layers:
        if name != pattern.place:
            _set(model, name, nn.Identity())


def _make_like(joined: ConvMap, example: Any) -> nn.Module:
    trained = example.weight.requires_grad
    return make_layer(joined, example.weight.dtype).train(example.training).requires_grad_(trained)


def _set(module: Any, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition('.')
    setattr(module.get_submodule(parent), leaf, layer)
