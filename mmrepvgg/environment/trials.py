"""Imports that are tried in a process of their own, since a broken library can end the process."""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory
from typing import Any

# What is imported of a package whose top level imports nothing.
_MODULES = {'ai_edge_litert': 'ai_edge_litert.interpreter', 'executorch': 'executorch.runtime'}

# The process has the path of this one, whatever started this one.
_START = """
import json, sys
path, out, *names = sys.argv[1:]
sys.path[:] = json.loads(path)
from mmrepvgg.environment.trials import write_trials
write_trials(names, out)
"""


@dataclass(frozen=True)
class Trial:
    """What came of one trial.

    Attributes:
        name: Name of a module, or ``'switch'``.
        error: Why it failed, in one line; empty if it did not.
        found: What it found.
        seconds: How long it took.
    """

    name: str
    error: str = ''
    found: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def run_trials(names: Sequence[str]) -> list[Trial]:
    """Try modules one after the other in another process. If one ends it, a new one tries the others."""
    trials: list[Trial] = []
    with TemporaryDirectory() as folder:
        out = Path(folder, 'trials')
        out.touch()
        while left := names[len(trials) :]:
            command = [sys.executable, '-c', _START, json.dumps(sys.path), str(out), *left]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace')
            trials += [Trial(**json.loads(line)) for line in out.read_text().splitlines()[len(trials) :]]
            if len(trials) < len(names):
                trials.append(Trial(names[len(trials)], _describe_end(done)))
                out.write_text(''.join(json.dumps(asdict(trial)) + '\n' for trial in trials))
    return trials


def _describe_end(done: subprocess.CompletedProcess) -> str:
    if done.returncode < 0:
        return f'ended the process by {Signals(-done.returncode).name}'
    return f'ended the process with status {done.returncode}: {" ".join(done.stderr.split())[-200:]}'


def write_trials(names: Sequence[str], out: str) -> None:
    """Try modules in this process, and add a line of JSON to ``out`` after each."""
    warnings.simplefilter('ignore')
    for name in names:
        before = time.perf_counter()
        try:
            trial = Trial(name, found=_try(name))
        except Exception as error:
            lines = str(error).strip().splitlines() or ['']
            trial = Trial(name, f'{type(error).__name__}: {" ".join(lines[:3])[:400]}')
        with open(out, 'a') as file:
            file.write(json.dumps(asdict(trial) | dict(seconds=round(time.perf_counter() - before, 2))) + '\n')
    # some runtimes crash in their own ends, which says nothing about their use
    os._exit(0)


def _try(name: str) -> dict[str, Any]:
    if name == 'switch':
        return _try_switch()
    import_module(_MODULES.get(name, name))
    if name == 'torch':
        return _look_at_torch()
    if name == 'mmengine':
        return _look_at_compilers()
    return {}


def _try_switch() -> dict[str, Any]:
    """Build a small network by the registry, switch it, and compare both forms."""
    import torch

    from mmrepvgg import build_backbone, reparameterize

    arch = dict(num_blocks=[1, 1, 2, 1], width_factor=[0.25, 0.25, 0.25, 0.25])
    network = build_backbone(dict(type='RepVGG', arch=arch)).eval()
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        (expected,), (switched,) = network(image), reparameterize(network)(image)
        return dict(difference=((switched - expected).abs().max() / expected.abs().max()).item())


def _look_at_torch() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = dict(
        threads=torch.get_num_threads(),
        cuda=torch.version.cuda or '',
        instructions=torch.backends.cpu.get_cpu_capability(),
        numpy='',
        gpus=[],
        gpu_error='',
    )
    try:
        torch.from_numpy(torch.zeros(1).numpy())
    except Exception as error:
        found['numpy'] = f'{type(error).__name__}: {error}'
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        try:
            torch.cuda.is_available()  # warns of a driver that does not fit
            found['gpus'] = [_look_at_gpu(index) for index in range(torch.cuda.device_count())]
        except Exception as error:
            found['gpu_error'] = ' '.join(str(error).split())[:400]
    if said and not found['gpu_error']:
        found['gpu_error'] = ' '.join(str(said[0].message).split())[:400]
    return found


def _look_at_gpu(index: int) -> dict[str, Any]:
    import torch

    # a kernel of this architecture must be in this build of torch
    torch.zeros(8, device=f'cuda:{index}').add(1).sum().item()
    properties = torch.cuda.get_device_properties(index)
    return dict(
        name=properties.name,
        capability=f'{properties.major}.{properties.minor}',
        memory_gb=round(properties.total_memory / 1e9, 1),
        bf16=properties.major >= 8,
    )


def _look_at_compilers() -> dict[str, Any]:
    """What mmengine says about compilers and CUDA, with which mmcv would be built."""
    from mmengine.utils.dl_utils import collect_env

    return {name: collected for name, collected in collect_env().items() if name in ('CUDA_HOME', 'NVCC', 'GCC')}
