"""The runtimes. A call runs one batch, and returns when the work is done."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..runtimes.network import DTYPES
from .cases import RUNTIMES, Case
from .exported import prepare_exported
from .memory import count_bytes, measure_peak
from .runner import Runner

Prepare = Callable[[Case, nn.Module, Tensor], Runner]

_MAX_COMPILED_ROWS = 1000


def prepare(case: Case, network: nn.Module, inputs: Tensor) -> Runner:
    """Prepare a network for the runtime of ``case``. The network may be changed.

    Args:
        case: The case.
        network: Network in eval mode, fp32, on the CPU.
        inputs: Images ``(N, 3, H, W)``, fp32, on the CPU.

    Raises:
        ImportError: If the runtime is not installed.
        Exception: Any error of a runtime that can't run the network.
    """
    return _PREPARE[case.runtime](case, network, inputs)


def require_device(device: str) -> None:
    """Raise a ``RuntimeError`` if there is no such device."""
    if device == 'cuda' and not torch.cuda.is_available():
        raise RuntimeError('no CUDA device is available to this PyTorch; leave cuda out of `devices`')


def synchronise(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def _prepare_eager(case: Case, network: nn.Module, inputs: Tensor) -> Runner:
    network, inputs = _place(case, network, inputs, DTYPES[case.precision])
    return _make_runner(case, network, inputs)


def _prepare_compiled(case: Case, network: nn.Module, inputs: Tensor) -> Runner:
    network, inputs = _place(case, network, inputs, DTYPES[case.precision])
    return _make_runner(case, _compile(network), inputs)


def _prepare_cuda_graph(case: Case, network: nn.Module, inputs: Tensor) -> Runner:
    network, inputs = _place(case, network, inputs, DTYPES[case.precision])
    with torch.inference_mode():
        # the first calls choose algorithms and allocate memory, which the graph must not contain
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                network(inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = network(inputs)

    def run() -> Tensor:
        graph.replay()
        synchronise(case.device)
        return outputs

    return Runner(run, lambda: run().float().cpu())


def _prepare_train_step(case: Case, network: nn.Module, inputs: Tensor) -> Runner:
    network, inputs = _place(case, network, inputs, torch.float32)
    network.train()
    labels = torch.arange(len(inputs), device=inputs.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    compute = _compile(network) if case.runtime == 'train-step-compiled' else network

    def autocast() -> torch.autocast | nullcontext:
        dtype = DTYPES[case.precision]
        return nullcontext() if dtype == torch.float32 else torch.autocast(case.device, dtype)

    def run() -> None:
        with autocast():
            loss = F.cross_entropy(compute(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronise(case.device)

    def logits() -> Tensor:
        network.eval()
        with torch.no_grad(), autocast():
            outputs = network(inputs)
        network.train()
        return outputs.float().cpu()

    def measure_memory() -> int:
        run()  # it allocates the momenta, and compiles
        return count_bytes(network, optimizer) + inputs.nbytes + measure_peak(run, case.device)

    return Runner(run, logits, measure_memory=measure_memory)


def _compile(network: nn.Module) -> Callable[[Tensor], Tensor]:
    # All rows of one class share the count of compiled variants. By default PyTorch goes on in eager mode after 8
    # variants, with only a warning.
    torch._dynamo.config.recompile_limit = _MAX_COMPILED_ROWS
    torch._dynamo.config.accumulated_recompile_limit = _MAX_COMPILED_ROWS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(network, dynamic=False)


def _place(case: Case, network: nn.Module, inputs: Tensor, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    memory_format = torch.channels_last if case.layout == 'channels_last' else torch.contiguous_format
    network = network.to(case.device, dtype).to(memory_format=memory_format)  # type: ignore[call-overload]
    return network, inputs.to(case.device, dtype).contiguous(memory_format=memory_format)


def _make_runner(case: Case, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Runner:
    def run() -> Tensor:
        with torch.inference_mode():
            outputs = network(inputs)
        synchronise(case.device)
        return outputs

    return Runner(run, lambda: run().float().cpu())


_PREPARE: dict[str, Prepare] = {
    'eager': _prepare_eager,
    'compiled': _prepare_compiled,
    'cuda-graph': _prepare_cuda_graph,
    **{name: prepare_exported for name, runtime in RUNTIMES.items() if runtime.takes_files},
    **{name: _prepare_train_step for name, runtime in RUNTIMES.items() if runtime.trains},
}
