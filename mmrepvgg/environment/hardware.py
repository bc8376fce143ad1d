"""What the machine has, as the system tells it, without torch."""

import os
import platform
import shutil
from pathlib import Path
from typing import Any

from ..runtimes.cpu import list_instructions, name_cpu


def describe_hardware() -> dict[str, Any]:
    """Describe the CPU, its instructions, the memory, and whether the system has an NVIDIA GPU."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    shared = shutil.disk_usage('/dev/shm').total if Path('/dev/shm').is_dir() else None
    return dict(
        system=platform.platform(),
        cpu=name_cpu(),
        cores=os.cpu_count(),
        usable_cores=_count_usable_cores(),
        instructions=list_instructions(),
        memory_gb=_to_gb(min(memory, _read_limit('memory.max') or memory)),
        shared_memory_gb=None if shared is None else _to_gb(shared),
        omp_num_threads=os.environ.get('OMP_NUM_THREADS', ''),
        has_nvidia_gpu=Path('/proc/driver/nvidia/version').exists() or shutil.which('nvidia-smi') is not None,
    )


def _count_usable_cores() -> int:
    """Cores that this process may use: a container may have a share of them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    limit = _read_limit('cpu.max')
    return min(usable, max(1, round(limit))) if limit else usable


def _read_limit(name: str) -> float | None:
    """A limit of the container's control group: bytes, or cores; None if there is none."""
    path = Path('/sys/fs/cgroup', name)
    try:
        amount, *period = path.read_text().split()
        return int(amount) / int(period[0] if period else 1)
    except (OSError, ValueError):  # no such file, or 'max'
        return None


def _to_gb(size: float) -> float:
    return round(size / 1e9, 1)
