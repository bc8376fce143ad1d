"""What is known of layers that become one convolution, by the names in their model."""

import os.path
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from .layers import FUSED_LAYERS
from .maps import AffineMap
from .scopes import find_scope, join_names
from .search import Path


@dataclass(frozen=True)
class Pattern:
    """Layers of a model that become one convolution. All names are from the model's root.

    Attributes:
        layers: Names of the layers, in the order in which they compute.
        place: The name that the convolution gets: that of the largest among the layers.
        scopes: The modules in whose code this happens.
        owner: The module that holds them all, in whose code one call takes the place of theirs.
        is_chain: Whether the layers simply follow each other, so that no code needs to change.
        steps: The steps of the graph, in their order: the layers, and what joins them, each with the module it is in.
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
    steps: tuple[str, ...]
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
        return self.steps, self.numbers


def describe_pattern(graph: fx.GraphModule, name: str, path: Path) -> Pattern:
    """The pattern of a path in the graph of the module ``name``."""
    nodes = sorted(step.origin for step in path.members)
    layers = [str(each.target) for each in nodes if each.op == 'call_module']
    scopes = [find_scope(each) for each in nodes]
    place = max(layers, key=lambda target: _count_weights(graph.get_submodule(target)), default='')
    if not place or _count_weights(graph.get_submodule(place)) < 0:
        place = _find_place(graph, next(step.origin for step in path.members if step.is_conv))
    # norms that a module computes in its own code, which has nothing else of the pattern
    others = [find_scope(step.origin) for step in path.members if not _is_norm_function(step.origin)]
    norms = {
        step
        for step in path.members
        if _is_norm_function(step.origin)
        and not any(f'{each}.'.startswith(f'{find_scope(step.origin)}.') for each in others)
    }
    return Pattern(
        tuple(join_names(name, each) for each in layers),
        join_names(name, place),
        frozenset(join_names(name, each) for each in scopes),
        join_names(name, _common([*scopes, *(each.rpartition('.')[0] for each in layers)])),
        all(step.is_call or step.is_reshape or step in norms for step in path.members),
        tuple(_describe_step(name, each) for each in nodes),
        tuple(sorted({join_names(name, each) for step in path.members for each in step.parameters})),
        getattr(path.map, 'num_axes', None) == 0,
        tuple(sorted(join_names(name, find_scope(step.origin)) for step in norms)),
    )


def _describe_step(name: str, node: fx.Node) -> str:
    if node.op == 'call_module':
        return join_names(name, str(node.target))
    # by the operation, and not by the name of the node, which is another one in the graph of another module
    return f'{join_names(name, find_scope(node))}:{_name_operation(node.target)}'


def _name_operation(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, '__name__', repr(target))


def _is_norm_function(node: fx.Node) -> bool:
    return node.target is F.batch_norm and bool(find_scope(node))


def _find_place(graph: fx.GraphModule, conv: fx.Node) -> str:
    """The name for a convolution that is no layer: that of the module whose code it is, if this does nothing else."""
    scope = find_scope(conv)
    module = graph.get_submodule(scope)
    is_layer = hasattr(module, 'weight') and not any(True for _ in module.children())
    return scope if is_layer and scope else join_names(scope, 'fused_conv')


def _count_weights(layer: nn.Module) -> int:
    return layer.weight.numel() if isinstance(layer, FUSED_LAYERS) else -1


def _common(scopes: list[str]) -> str:
    """The module that holds all of ``scopes``."""
    parts = [f'/{scope}'.replace('.', '/') for scope in scopes]
    return os.path.commonpath(parts).lstrip('/').replace('/', '.')
