"""The processes of a distributed run: who started them, how they find each other, and the cores of each."""

import os
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import gather_object, get_world_size
from torch import distributed


@dataclass(frozen=True)
class _Starter:
    """A program that starts processes, and the variables that it gives each of them.

    Attributes:
        program: Name of the program.
        rank: Variable with the number of the process.
        world_size: Variable with the number of processes.
        local_rank: Variable with the number of the process on its machine.
        local_size: Variable with the number of processes on the machine.
        others: Variables that are needed besides.
    """

    program: str
    rank: str
    world_size: str
    local_rank: str
    local_size: str = ''
    others: tuple[str, ...] = ()


_OMPI = 'OMPI_COMM_WORLD'
_STARTERS = {
    'pytorch': _Starter(
        'torchrun', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', ('MASTER_ADDR', 'MASTER_PORT')
    ),
    'slurm': _Starter(
        'srun', 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', others=('SLURM_JOB_ID', 'SLURM_STEP_NODELIST')
    ),
    'mpi': _Starter(
        'mpirun', f'{_OMPI}_RANK', f'{_OMPI}_SIZE', f'{_OMPI}_LOCAL_RANK', f'{_OMPI}_LOCAL_SIZE', ('MASTER_ADDR',)
    ),
}
LAUNCHERS = ('none', *_STARTERS)


def check_launcher(launcher: str) -> None:
    """Check that this process was started as ``launcher`` says, and set the variables of torchrun.

    Raises:
        ValueError: If there is no such launcher, if variables are missing, or if the first node has no known name.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f'`launcher` must be one of {", ".join(LAUNCHERS)}, got {launcher!r}')
    if launcher == 'none':
        return
    starter = _STARTERS[launcher]
    names = dict(RANK=starter.rank, WORLD_SIZE=starter.world_size, LOCAL_RANK=starter.local_rank)
    if missing := [name for name in (*names.values(), *starter.others) if name not in os.environ]:
        raise ValueError(
            f'`launcher={launcher}` is for processes that {starter.program} starts, and {missing[0]} is not set; start '
            f'the command with {starter.program}, or leave out `launcher`'
        )
    os.environ.update({name: os.environ[given] for name, given in names.items()})
    if launcher == 'slurm':
        # jobs that share a node get ports of their own
        os.environ.setdefault('MASTER_PORT', str(20000 + int(os.environ['SLURM_JOB_ID']) % 20000))
        if 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = _find_first_node(os.environ['SLURM_STEP_NODELIST'])
    os.environ.setdefault('MASTER_PORT', '29500')  # torch's own


def _find_first_node(nodes: str) -> str:
    """The name of the first of ``nodes``, in Slurm's notation: ``'gpu[03-07,12]'``."""
    if not set('[,') & set(nodes):
        return nodes
    try:
        names = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f'the first node of {nodes} can not be found, since scontrol does not run here ({error}); set the variable '
            'MASTER_ADDR to its name'
        ) from error
    return names.stdout.split()[0]


def join_processes(launcher: str, timeout: float | None = None) -> None:
    """Let the processes of a run find each other, on gloo, which needs no GPU.

    Each process of a machine gets a GPU if there are some, and its share of the cores.

    Args:
        launcher: Way in which the processes were started, one of :data:`LAUNCHERS`.
        timeout: Longest time in seconds for which a process waits for the others. Default: half an hour.

    Raises:
        ValueError: If this process was not started as ``launcher`` says.
    """
    check_launcher(launcher)
    if launcher == 'none':
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    if not distributed.is_initialized():
        distributed.init_process_group('gloo', timeout=None if timeout is None else timedelta(seconds=timeout))
    if (cores := share_cores()) is not None:
        torch.set_num_threads(cores)


def share_cores() -> int | None:
    """Number of CPU cores for each process of this machine, or None if there is only one process.

    torchrun sets ``OMP_NUM_THREADS=1``, whatever the machine has; only another value counts as the user's wish. Slurm
    gives a process one core if the job does not ask for more.
    """
    if get_world_size() == 1:
        return None
    if os.environ.get('OMP_NUM_THREADS', '1') != '1':
        return int(os.environ['OMP_NUM_THREADS'])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    for starter in _STARTERS.values():
        if starter.local_size in os.environ:
            return max(1, cores // int(os.environ[starter.local_size]))
    return min(cores, int(os.environ.get('SLURM_CPUS_PER_TASK', 1)))


def gather_dicts(own: dict[Any, Any]) -> dict[Any, Any]:
    """Put the dicts of all processes together in the main process. The others get their own back."""
    parts = gather_object(own)
    return own if parts is None else {key: value for part in parts for key, value in part.items()}
