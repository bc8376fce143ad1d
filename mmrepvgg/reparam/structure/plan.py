"""Which layers of a model become one convolution, and in which module's code that happens."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .following import Follower, is_container
from .layers import FUSED_LAYERS
from .part_reading import adds_up, find_opened, find_read
from .patterns import Pattern, describe_pattern
from .reading import READ_ELSEWHERE, read_steps
from .scopes import find_scope, join_names
from .search import Path, compute_map, search
from .steps import Constant, Step
from .tracing import Stopped, Traced, trace

_STEERED = 'an argument of `forward` that may be left out changes what {} computes'
_IN_CONTEXT = 'the code of {} runs in a context, such as autocast or no_grad'
_TOLD = '{} is called with something else than one value: with a list, an option or None'


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
        if module in reasons and (_has_norms(module) or (_has_layers(module) and adds_up(module)))
    }
    return plan


class _Planner:
    def __init__(self, model: nn.Module, known: Collection[nn.Module]):
        self.model, self.follower, self.plan = model, Follower(model, known), Plan()
        self.seen: set[nn.Module] = set()
        self.fixed: dict[str, str | None] = {}
        self.told: set[nn.Module] = set()

    def visit(self, name: str, module: nn.Module) -> None:
        """Look at the code of a module by itself, and then at those in it that are one step of this code."""
        if module in self.seen or not self.follower.is_block(module):
            return
        self.seen.add(module)
        if is_container(module):
            self._visit_parts(name, module, ())
            return
        traced = self.follower.follow(module)
        if isinstance(traced, Stopped):
            self.follower.reasons.setdefault(module, traced.reason)
            opened = find_opened(module)
            self._visit_parts(name, module, set(module.children()) if opened is None else opened)
            return
        single = self.follower.single
        # what is called several times is fused by itself, once
        again = {each for each, number in traced.num_calls.items() if number > 1 and self.follower.is_block(each)}
        apart = trace(module, single | again) if again else traced
        if isinstance(apart, Traced):  # code may take apart what they give
            traced, single = apart, single | again
        else:
            visited: list[str] = []
            for path, part in module.named_modules():
                if part in again and not any(path.startswith(f'{other}.') for other in visited):
                    visited.append(path)
                    self.visit(join_names(name, path), part)
        self.told |= traced.told
        self._read(name, module, traced)
        for path, part in _find_tops(module, single, traced.num_calls.keys()):
            self.visit(join_names(name, path), part)

    def _visit_parts(self, name: str, module: nn.Module, opened: Collection[nn.Module]) -> None:
        """Look at the modules in one that is not followed; of those whose parts it uses, at their parts."""
        for path, child in module.named_children():
            if child in opened:
                self._visit_parts(join_names(name, path), child, opened)
            else:
                self.visit(join_names(name, path), child)

    def _read(self, name: str, module: nn.Module, traced: Traced) -> None:
        graph = traced.graph
        # layers that other code calls, too
        single = [part for part in _reach(module, ()) if part in self.follower.single and [*part.children()]]
        inner = {part for each in single for part in each.modules() if part is not each}
        outside = _reach(module, single) & (_reach(self.model, [module]) | inner)
        steps = read_steps(graph, outside=outside)
        blocked: dict[Step, str] = {}
        within: dict[Step, str] = {}  # the sums on the way to one that is blocked
        while True:
            found = search(steps, blocked)
            judged = {step: self._judge(name, step, path, steps, traced) for step, path in found.patterns.items()}
            obstacles = {step: each for step, each in judged.items() if isinstance(each, str)}
            if not obstacles:
                break
            # what is in a pattern may have patterns of its own
            blocked |= obstacles
            for step in obstacles:
                if isinstance(step.does, float):
                    within |= dict.fromkeys(found.patterns[step].members - {step}, obstacles[step])
        for step, reason in found.branches.items():
            if within.get(step) != reason:
                self.plan.branches[_name(name, step.origin)] = reason
        for step, reason in found.layers.items():
            self.plan.layers[_name(name, step.origin)] = reason
        for pattern in judged.values():
            assert isinstance(pattern, Pattern)
            is_new = pattern.place.rpartition('.')[2] == 'fused_conv' and pattern.place not in pattern.layers
            self.plan.patterns.append(replace(pattern, place=self._find_free(pattern.place, is_new)))

    def _judge(self, name: str, step: Step, path: Path, steps: Sequence[Step], traced: Traced) -> Pattern | str:
        """The pattern of a path, or why it must stay; an empty string if that is nothing to tell."""
        pattern = describe_pattern(traced.graph, name, path)
        pattern = replace(
            pattern,
            is_chain=pattern.is_chain and all(map(self._is_norm_module, pattern.norms)),
            compute=partial(compute_map, path, step, steps),
        )
        obstacle = self._find_obstacle(name, pattern, path, traced)
        if obstacle or pattern.is_chain:
            return obstacle or pattern
        owner, obstacle = self._find_owner(name, pattern.owner)
        if _is_scaled_layer(path) and (obstacle or owner != pattern.owner):
            return ''  # a layer scale is not worth it to take a block into the code around it
        return obstacle or replace(pattern, owner=owner)

    def _find_obstacle(self, name: str, pattern: Pattern, path: Path, traced: Traced) -> str | None:
        """Why a pattern must stay that no graph shows."""
        layers = {self.model.get_submodule(each) for each in pattern.layers}
        for scope in pattern.scopes if pattern.is_chain else ():  # other code is changed, and has what it read
            if layers & find_read(self.model.get_submodule(scope)):
                return 'the code around it reads attributes of the layers'
        readers = {join_names(name, each) for step in path.members for each in step.read_in}
        if not readers <= (set() if pattern.is_chain else pattern.scopes):
            return READ_ELSEWHERE
        methods = {
            (scope, step.origin.meta.get('method', 'forward'))
            for step in path.members
            if (scope := join_names(name, find_scope(step.origin))) not in pattern.norms
        }
        public = sorted(
            method
            for scope, method in methods
            # layers that only follow each other leave code as it is; of parts, others call methods named for it
            if method != 'forward' and (not pattern.is_chain or not scope or method.startswith('forward'))
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
        if isinstance(traced, Stopped) or traced.is_steered:
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

    def _find_owner(self, root: str, first: str) -> tuple[str, str | None]:
        """The smallest module around ``first`` whose code may be changed, or why there is none."""
        owner = first
        while self._find_fixed(owner):
            if owner == root:
                return first, self._find_fixed(first)
            owner = owner.rpartition('.')[0]
        return owner, None

    def _find_fixed(self, name: str) -> str | None:
        """Why the code of a module must stay as it is."""
        if name not in self.fixed:
            module = self.model.get_submodule(name)
            traced = trace(module, self.follower.single)
            if isinstance(traced, Stopped):
                reason: str | None = traced.reason
            elif module in traced.in_context:
                reason = _IN_CONTEXT
            elif traced.is_steered:
                reason = _STEERED
            else:
                reason = _TOLD if module in self.told else None
            self.fixed[name] = reason and reason.format(type(module).__name__)
        return self.fixed[name]


def _has_norms(module: nn.Module) -> bool:
    return any(isinstance(each, _BatchNorm) for each in module.children())


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(each, FUSED_LAYERS) for each in module.modules())


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
        # an activation without numbers may be called under other names
        parts = (part for part in child.modules() if part.state_dict())
        if child in single or not any(part in called for part in parts):
            yield name, child
        else:
            for path, part in _find_tops(child, single, called):
                yield join_names(name, path), part


def _name(name: str, node: fx.Node) -> str:
    return join_names(name, str(node.target) if node.op == 'call_module' else join_names(find_scope(node), node.name))
