"""The program in a Core ML package, computed by PyTorch: a check for machines without Core ML.

Operations, weights and numbers are those that are read back from the package. The operations and the meaning of their
arguments are those of Core ML's Model Intermediate Language (MIL).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .coreml_package import INPUT, OUTPUT, WEIGHTS, import_coremltools
from .network import ExportError

_DTYPES = {'fp32': torch.float32, 'fp16': torch.float16}


def _conv(
    x: Tensor,
    weight: Tensor,
    strides: Sequence[int],
    pad_type: str,
    pad: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    if pad_type not in ('custom', 'valid'):
        raise ExportError(f'pad_type of a convolution must be custom or valid, got {pad_type}')
    if pad_type == 'custom':
        top, bottom, left, right = pad
        x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, tuple(strides), 0, tuple(dilations), groups)


# One row an operation: what the networks of this project consist of, activations included.
OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    'conv': _conv,
    'linear': lambda x, weight, bias=None: F.linear(x, weight, bias),
    'add': lambda x, y: x + y,
    'sub': lambda x, y: x - y,
    'mul': lambda x, y: x * y,
    'real_div': lambda x, y: x / y,
    'relu': lambda x: x.relu(),
    'relu6': lambda x: F.relu6(x),
    'clip': lambda x, alpha, beta: x.clamp(alpha, beta),
    'leaky_relu': lambda x, alpha: F.leaky_relu(x, alpha),
    'thresholded_relu': lambda x, alpha: F.threshold(x, alpha, 0.0),
    'sigmoid': lambda x: x.sigmoid(),
    'sigmoid_hard': lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    'silu': lambda x: F.silu(x),
    'gelu': lambda x, mode: F.gelu(x, approximate={'EXACT': 'none', 'TANH_APPROXIMATION': 'tanh'}[mode]),
    'softmax': lambda x, axis: x.softmax(axis),
    'reduce_mean': lambda x, axes, keep_dims: x.mean(axes, keep_dims),
    'reshape': lambda x, shape: x.reshape(shape),
    'reverse': lambda x, axes: x.flip(axes),
    'cast': lambda x, dtype: x.to(_DTYPES[dtype]),
}


class Program:
    """The program in a package, as a function from images ``(N, C, H, W)`` to scores ``(N, classes)``.

    Args:
        spec: Core ML's description of the package, which has the program.
        path: The package, which has the weights.

    Raises:
        ExportError: If there is an operation that is not in :data:`OPERATIONS`.
    """

    def __init__(self, spec: Any, path: Path):
        import_coremltools()
        from coremltools.converters.mil.frontend.milproto.load import load

        program = load(spec, spec.specificationVersion, str((path / WEIGHTS).parent))
        operations = program.functions['main'].operations
        if unknown := sorted({op.op_type for op in operations} - {'const', *OPERATIONS}):
            raise ExportError(
                f'a Core ML file can be checked on this machine if it consists of {", ".join(OPERATIONS)}, got '
                f'{", ".join(unknown)}; export on macOS, where Core ML runs it, or to another format'
            )
        self._constants = {op.name: _convert(op.val.val) for op in operations if op.op_type == 'const'}
        self._operations = [op for op in operations if op.op_type != 'const']

    def __call__(self, images: Tensor) -> Tensor:
        values: dict[str, Any] = {INPUT: images, **self._constants}
        for op in self._operations:
            arguments = {name: values[source.name] for name, source in op.inputs.items()}
            values[op.outputs[0].name] = OPERATIONS[op.op_type](**arguments)
        return values[OUTPUT]


def _convert(value: Any) -> Any:
    """A constant for PyTorch: weights as a tensor, settings as Python's numbers and strings."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == 'f':
        return torch.from_numpy(value.copy())
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
