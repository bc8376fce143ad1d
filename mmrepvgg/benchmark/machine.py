"""The description of the machine and the software of a run."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from .. import __version__
from ..runtimes.cpu import read_cpuinfo, read_flags

_PACKAGES = (
    *('torch', 'mmpretrain', 'timm', 'onnxruntime', 'openvino', 'ncnn', 'executorch', 'ai-edge-litert'),
    *('nncf', 'torchao', 'ai-edge-quantizer'),
)

# Instructions that decide the speed of matrix products, by their names in /proc/cpuinfo, the fastest first.
_INSTRUCTIONS = {
    'amx_int8': 'AMX int8',
    'amx_bf16': 'AMX bf16',
    'amx_fp16': 'AMX fp16',
    'avx512_fp16': 'AVX-512 fp16',
    'avx512_bf16': 'AVX-512 bf16',
    'avx512_vnni': 'AVX-512 VNNI',
    'avx512f': 'AVX-512',
    'avx_vnni': 'AVX VNNI',
    'avx2': 'AVX2',
    'asimd': 'NEON',
}


def describe_machine() -> dict[str, Any]:
    """Describe the CPU, its cores and matrix instructions, the GPU, and the present load of the machine."""
    flags = read_flags()
    return dict(
        cpu=read_cpuinfo().get('model name') or platform.processor() or platform.machine(),
        cores=os.cpu_count(),
        instructions=[title for flag, title in _INSTRUCTIONS.items() if flag in flags],
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=f'{platform.system()} {platform.machine()}',
        load_average=list(os.getloadavg()),
    )


def describe_versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """List the versions of Python and of these packages, where they are installed."""
    versions = {'python': platform.python_version(), 'mmrepvgg': __version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda and torch.cuda.is_available():
        versions['cuda'] = torch.version.cuda
    return versions
