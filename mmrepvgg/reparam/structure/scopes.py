"""Names of modules in a model, and of the modules in whose code a step of a graph is."""

from torch import fx


def find_scope(node: fx.Node) -> str:
    """The module in whose code a step is. A layer may have a name elsewhere."""
    stack = [path for path, _ in node.meta.get('nn_module_stack', {}).values()]
    if node.op == 'call_module':
        stack = stack[:-1]
    return stack[-1] if stack else ''


def join_names(name: str, path: str) -> str:
    """The name from the root of what has the name ``path`` in the module ``name``."""
    return f'{name}.{path}' if name and path else name or path
