"""The writing of TorchScript modules."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def write_script(
    network: 'nn.Module', example: 'Tensor', path: Path, extra_files: Mapping[str, str] | None = None
) -> None:
    """Trace a network by an example of its input, and write it.

    torch writes it into memory: if the disk is full, its writer of files ends the process.
    """
    import torch

    from .quiet import quiet

    buffer = io.BytesIO()
    with quiet():
        traced = torch.jit.trace(network, example, check_trace=False)
        torch.jit.save(traced, buffer, _extra_files=dict(extra_files or {}))
    path.write_bytes(buffer.getbuffer())
