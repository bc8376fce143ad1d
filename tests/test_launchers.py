"""The variables by which the programs that start processes tell them of each other."""

import os
import subprocess

import pytest
import torch
from mmengine.config import Config
from tool_runs import SMALL, fail_here

from mmrepvgg import load_config, train
from mmrepvgg.engine import launchers
from mmrepvgg.engine.launchers import check_launcher, join_processes, share_cores
from mmrepvgg.engine.processes import prepare_processes
from mmrepvgg.engine.sharding import check_sharded

SLURM = dict(SLURM_PROCID='3', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_JOB_ID='45678')
SLURM |= dict(SLURM_STEP_NODELIST='gpu[03-04,12]')
MPI = dict(OMPI_COMM_WORLD_RANK='3', OMPI_COMM_WORLD_SIZE='8', OMPI_COMM_WORLD_LOCAL_RANK='1', MASTER_ADDR='gpu03')
TORCHRUN = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')


@pytest.fixture
def variables(monkeypatch):
    """Sets the variables of a process; those of other programs are gone, and all come back after the test."""
    for name in (*TORCHRUN, *SLURM, *MPI, 'OMP_NUM_THREADS', 'LOCAL_WORLD_SIZE', 'SLURM_CPUS_PER_TASK'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    return lambda **given: [monkeypatch.setenv(name, value) for name, value in given.items()]


def test_slurm(variables, monkeypatch):
    variables(**SLURM)
    # as Slurm's program answers
    hosts = subprocess.CompletedProcess([], 0, 'gpu03\ngpu04\ngpu12\n')
    monkeypatch.setattr(launchers.subprocess, 'run', lambda command, **_: hosts if 'gpu[03-04,12]' in command else None)
    check_launcher('slurm')
    assert [os.environ[name] for name in TORCHRUN] == ['3', '8', '1', 'gpu03', '25678']


def test_slurm_on_one_node_or_without_its_programs(variables):
    variables(**SLURM | dict(SLURM_STEP_NODELIST='gpu03'), MASTER_PORT='1234', PATH='')
    check_launcher('slurm')
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('gpu03', '1234')
    del os.environ['MASTER_ADDR']
    os.environ['SLURM_STEP_NODELIST'] = 'gpu[03-04]'
    with pytest.raises(ValueError, match=r'scontrol does not run here.*; set the variable MASTER_ADDR to its name'):
        check_launcher('slurm')
    os.environ['MASTER_ADDR'] = 'gpu03'
    check_launcher('slurm')


def test_mpi(variables):
    variables(**MPI)
    check_launcher('mpi')
    assert [os.environ[name] for name in TORCHRUN] == ['3', '8', '1', 'gpu03', '29500']


def test_a_process_that_nothing_started(variables, tmp_path):
    for launcher, program in (('pytorch', 'torchrun'), ('slurm', 'srun'), ('mpi', 'mpirun')):
        with pytest.raises(ValueError, match=rf'that {program} starts, and \w*(RANK|PROCID) is not set; start'):
            join_processes(launcher)
    with pytest.raises(ValueError, match="`launcher` must be one of none, pytorch, slurm, mpi, got 'torchrun'"):
        join_processes('torchrun')
    line = fail_here('predict', SMALL, __file__, __file__, '--launcher', 'slurm', cwd=tmp_path)
    assert '--launcher slurm is for processes that srun starts' in line
    assert line.endswith('start the command with srun, or leave out --launcher')


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (dict(OMP_NUM_THREADS='1', LOCAL_WORLD_SIZE='3'), 4),
        (dict(LOCAL_WORLD_SIZE='24'), 1),
        (dict(OMP_NUM_THREADS='3', LOCAL_WORLD_SIZE='4'), 3),
        (dict(OMPI_COMM_WORLD_LOCAL_SIZE='2'), 6),
        (dict(SLURM_CPUS_PER_TASK='5'), 5),
        (dict(SLURM_CPUS_PER_TASK='16'), 12),
        ({}, 1),
    ],
)
def test_the_cores_of_a_process(variables, monkeypatch, given, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(12)), raising=False)
    variables(**given)
    assert share_cores() is None
    monkeypatch.setattr(launchers, 'get_world_size', lambda: 8)
    assert share_cores() == expected


def test_what_the_loaders_and_the_model_get(variables, monkeypatch):
    cfg = Config(
        dict(model=dict(), train_dataloader=dict(num_workers=0, persistent_workers=True), find_unused_parameters=True)
    )
    prepare_processes(cfg, 'none')
    assert cfg.train_dataloader == dict(num_workers=0)
    assert 'model_wrapper_cfg' not in cfg
    if torch.cuda.is_available():
        pytest.skip('mmengine starts the processes')
    monkeypatch.setattr('mmrepvgg.engine.processes.join_processes', lambda *_: None)
    variables(**MPI)
    prepare_processes(cfg, 'mpi')
    assert (cfg.model_wrapper_cfg.device_ids, cfg.model_wrapper_cfg.find_unused_parameters) == (None, True)


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU has synchronised batch norms')
@pytest.mark.parametrize('setting', ['sync_bn=torch', 'model.backbone.norm_cfg.type=SyncBN'])
def test_synchronised_norms_need_a_gpu(variables, setting):
    variables(**MPI)
    with pytest.raises(ValueError, match=r"run on GPUs only.*; leave out sync_bn of the config, or .*type='BN'"):
        prepare_processes(load_config(SMALL, [setting]), 'mpi')


class TestStrategy:
    def test_what_does_not_work_with_parts_of_weights(self):
        cfg = load_config('repvgg-b3_8xb32_fsdp')
        check_sharded(cfg)
        for hook in ('mmrepvgg.CustomL2Hook', 'EMAHook', 'mmrepvgg.CompileHook'):
            with pytest.raises(ValueError, match=rf'{hook[-7:]} needs whole weights, and with FSDP each process holds'):
                check_sharded(load_config('repvgg-b3_8xb32_fsdp', [f'default_hooks.extra.type={hook}']))
        with pytest.raises(ValueError, match='FSDP has no gradient clipping here'):
            check_sharded(load_config('repvgg-b3_8xb32_fsdp', ['optim_wrapper.clip_grad.max_norm=1.0']))

    def test_it_needs_a_launcher_and_has_its_own_precision(self, tmp_path):
        cfg = load_config(SMALL, ['strategy.type=mmrepvgg.FSDPStrategy'])
        with pytest.raises(ValueError, match='trains in several processes; give `launcher`'):
            train(cfg, str(tmp_path))
        with pytest.raises(ValueError, match='has its own mixed precision: leave out `amp`'):
            train(cfg, str(tmp_path), amp=True)
