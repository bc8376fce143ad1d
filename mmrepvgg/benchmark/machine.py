"""The description of the machine and the software of a run."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from .. import __version__
from ..runtimes.cpu import list_instructions, name_cpu

_PACKAGES = (
    *('torch', 'mmpretrain', 'timm', 'onnxruntime', 'openvino', 'ncnn', 'executorch', 'ai-edge-litert'),
    *('nncf', 'torchao', 'ai-edge-quantizer'),
)


def describe_machine() -> dict[str, Any]:
    """Describe the CPU, its cores and matrix instructions, the GPU, and the present load of the machine."""
    return dict(
        cpu=name_cpu(),
        cores=os.cpu_count(),
        instructions=list_instructions(),
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
