"""What code computes from parameters and buffers alone: kernels, for example, or a penalty on the weights."""

import contextlib
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from .writing import is_in_place


@dataclass(frozen=True)
class Constants:
    """The values of a graph that do not depend on its inputs.

    Attributes:
        values: The value of each node.
        origins: The names of the parameters and buffers from which each constant comes; and of those that each other
            node takes.
    """

    values: dict[fx.Node, Any] = field(default_factory=dict)
    origins: dict[fx.Node, frozenset[str]] = field(default_factory=dict)

    def list_final(self) -> list[fx.Node]:
        """Those that other code reads than that of constants."""
        return [node for node in self.values if any(user not in self.values for user in node.users)]

    def is_number(self, node: fx.Node) -> bool:
        """Whether a constant is a single number that code computes, and no parameter itself."""
        value = self.values[node]
        return node.op != 'get_attr' and isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()


def compute_constants(model: fx.GraphModule) -> Constants:
    """Run the steps of a graph that need no inputs."""
    found = Constants()
    for node in model.graph.nodes:
        known = [each for each in node.all_input_nodes if each in found.values]
        names = frozenset[str]().union(*(found.origins[each] for each in known))
        if node.op == 'get_attr':
            found.values[node] = operator.attrgetter(str(node.target))(model)
            names = frozenset([str(node.target)])
        elif known and len(known) == len(node.all_input_nodes) and not is_in_place(node):
            with torch.no_grad(), contextlib.suppress(Exception):  # what can't be computed now is no constant
                found.values[node] = run_node(node, found.values)
        found.origins[node] = names
    return found


def run_node(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """The value of an operation, by the values of what it takes."""
    arguments: Any = fx.map_arg(node.args, lambda each: values[each])
    keywords: Any = fx.map_arg(node.kwargs, lambda each: values[each])
    if node.op == 'call_method':
        return getattr(arguments[0], str(node.target))(*arguments[1:], **keywords)
    if node.op != 'call_function':
        raise TypeError(f'{node.op} is no operation')
    target: Any = node.target
    return target(*arguments, **keywords)
