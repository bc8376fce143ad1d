"""What follows from the machine for trainings and files."""

from collections.abc import Iterator
from typing import Any

# Docker gives a container 64 MB of shared memory, through which workers pass batches.
_SMALL_SHARED_MEMORY_GB = 0.5


def advise(hardware: dict[str, Any], torch: dict[str, Any]) -> Iterator[str]:
    """Say what this machine does well.

    Args:
        hardware: The machine (:func:`mmrepvgg.environment.hardware.describe_hardware`).
        torch: What torch says of it.
    """
    yield from _advise_on_precisions(hardware['instructions'], torch.get('gpus', []))
    threads = hardware['omp_num_threads']
    if threads.isdecimal() and int(threads) > hardware['usable_cores']:
        yield f'OMP_NUM_THREADS is {threads}, with {hardware["usable_cores"]} cores: more threads than cores are slower'
    shared = hardware['shared_memory_gb']
    if shared is not None and shared < _SMALL_SHARED_MEMORY_GB:
        yield (
            f'/dev/shm has {shared} GB: workers of a training may end with a bus error; start the container with '
            '--shm-size=8g, or train with train_dataloader.num_workers=0'
        )
    if hardware['has_nvidia_gpu'] and torch and not torch.get('cuda'):
        yield 'this build of torch is for CPUs, and the system has an NVIDIA GPU: install a build for CUDA to use it'


def _advise_on_precisions(instructions: list[str], gpus: list[dict[str, Any]]) -> Iterator[str]:
    if gpus:
        yield 'train --amp: worth it on this GPU (float16)'
    elif not instructions:
        yield 'train --amp and int8: the system does not list the instructions of its CPU; mmrepvgg benchmark tells'
    else:
        bf16 = _find(instructions, 'bf16')
        yield (
            f'train --amp: worth it on this CPU ({bf16})'
            if bf16
            else ('train --amp: slower than float32 on this CPU, which has no bfloat16 instructions')
        )
    if instructions:
        int8 = _find(instructions, 'int8', 'VNNI')
        yield (
            f'int8 files: fast on this CPU ({int8})'
            if int8
            else ('int8 files: run on this CPU, but it has no instructions for them, so that they gain less')
        )


def _find(instructions: list[str], *words: str) -> str:
    return ', '.join(title for title in instructions if any(word in title for word in words))
