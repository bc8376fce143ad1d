"""The examination as text, for people and bug reports, and as JSON."""

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from .. import __version__
from ..tables import format_table
from .examination import Environment


def format_environment(environment: Environment) -> str:
    """Two tables, a few lines about the machine, and what is wrong at the end."""
    return '\n'.join(_iterate_lines(environment))


def to_json(environment: Environment) -> str:
    content: dict[str, Any] = dict(mmrepvgg=__version__, python=platform.python_version())
    return json.dumps(content | asdict(environment), indent=1)


def _iterate_lines(environment: Environment) -> Iterator[str]:
    hardware, torch = environment.hardware, environment.torch
    yield f'mmrepvgg {__version__}, Python {platform.python_version()}, {hardware["system"]}\n'
    versions = [[name, version or 'not installed'] for name, version in environment.versions.items()]
    yield format_table(['package', 'version'], versions, left=2)
    yield ''
    rows = [
        [extra.name, ', '.join(f'{need.name} {need.version}'.strip() for need in extra.needs), extra.state]
        for extra in environment.extras
    ]
    yield format_table(['extra', 'packages', 'state'], rows, left=3)
    yield ''
    yield f'mmcv operators: {"there" if environment.mmcv_operators else "none; classifying needs none"}'
    instructions = ', '.join(hardware['instructions']) or torch.get('instructions', 'not known')
    yield (
        f'CPU: {hardware["cpu"]}, {hardware["usable_cores"]} of {hardware["cores"]} cores, '
        f'{torch.get("threads", "no")} threads in torch; {instructions}'
    )
    yield f'memory: {hardware["memory_gb"]} GB'
    yield f'GPU: {"; ".join(map(_format_gpu, torch.get("gpus", []))) or "none that torch can use"}'
    if environment.difference is not None:
        yield f'switch of a small network: differs by {environment.difference:.1e} of the largest output'
    yield from environment.advice
    yield ''
    yield from _describe_problems(environment)


def _format_gpu(gpu: dict[str, Any]) -> str:
    bf16 = 'with' if gpu['bf16'] else 'without'
    return f'{gpu["name"]}, capability {gpu["capability"]}, {gpu["memory_gb"]} GB, {bf16} bfloat16'


def _describe_problems(environment: Environment) -> Iterator[str]:
    if not environment.problems:
        unknown = '' if find_spec('packaging') else ' (the versions were not compared: that needs packaging)'
        yield f'nothing is wrong{unknown}'
    for problem in environment.problems:
        yield f'wrong: {problem.what}\n  do: {problem.remedy}'
