"""The memory that a training step needs."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..runtimes.quiet import quiet_stderr


def measure_peak(run: Callable[[], object], device: str) -> int:
    """Call ``run``, and measure how many bytes of tensors existed at most beside those that were there before.

    On a CPU these are the allocations that PyTorch's profiler records. They do not include what oneDNN takes for the
    time of one operation.
    """
    if device == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    # the profiler says on stderr when it starts and stops
    with quiet_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    with TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    events = sorted((event for event in events if event['name'] == '[memory]'), key=lambda event: event['ts'])
    present = peak = 0
    for event in events:
        present += event['args']['Bytes']
        peak = max(peak, present)
    return peak


def count_bytes(network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, statistics, and the optimizer's state, such as momenta."""
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers(), *states))
