"""ncnn's network of a file, in float32 or int8."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.reading import CheckpointError
from .ncnn_files import get_weights_path

if TYPE_CHECKING:
    import numpy as np

# By default ncnn rounds weights and activations to float16 or bfloat16 where the CPU has instructions for them.
_ROUNDING_OPTIONS = (
    *('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic'),
    *('use_bf16_packed', 'use_bf16_storage'),
)


def load_network(path: Path, num_threads: int | None = None) -> Any:
    """Load a .param and its .bin as an ``ncnn.Net`` that computes in float32, or in int8 where the file says so.

    Args:
        path: The .param.
        num_threads: Number of CPU threads. Default: that of PyTorch; ncnn's own does not follow ``OMP_NUM_THREADS``.

    Raises:
        CheckpointError: If ncnn can't read them.
    """
    import ncnn
    import torch

    network = ncnn.Net()
    for option in _ROUNDING_OPTIONS:
        setattr(network.opt, option, False)
    network.opt.num_threads = num_threads or torch.get_num_threads()
    # these functions return a status
    if network.load_param(str(path)) or network.load_model(str(get_weights_path(path))):
        raise CheckpointError(f'ncnn can not load {path}; export again')
    return network


def compute_blobs(network: Any, image: 'np.ndarray', names: Iterable[str]) -> 'Iterator[np.ndarray]':
    """Compute blobs of a network.

    Args:
        network: An ``ncnn.Net`` with the input ``images``.
        image: Input ``(C, H, W)``, float32.
        names: Names of blobs, in the order in which they are computed.

    Raises:
        RuntimeError: If ncnn can't compute one.
    """
    import ncnn
    import numpy as np

    extractor = network.create_extractor()
    # a Mat has no memory of its own without clone()
    extractor.input('images', ncnn.Mat(image).clone())
    for name in names:
        status, blob = extractor.extract(name)
        if status:
            raise RuntimeError(f'ncnn can not compute {name}: status {status}')
        yield np.array(blob)
