"""The whole study: train, quantize and measure every model, several at a time."""

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import torch
from mmengine.config import Config

from mmrepvgg.progress import track

from .measuring import RESULT, Measurement, measure_subject, read_measurement
from .subjects import Subject
from .training import Plan, is_trained, train_subject

LOG = 'log.txt'


@dataclass(frozen=True)
class _Task:
    base: Config
    subject: Subject
    work_dir: Path
    plan: Plan
    num_threads: int


def run_study(
    base: Config, subjects: Sequence[Subject], work_dir: Path, plan: Plan, *, jobs: int = 1
) -> list[Measurement]:
    """Train and measure models. Results in ``work_dir`` are not made again, so a study can be interrupted.

    Args:
        base: The config of a RepVGG with its data.
        subjects: The models.
        work_dir: Folder that gets a folder for each model, with logs, checkpoint, ``measured.json`` and
            ``analysis.png``.
        plan: The lengths of trainings.
        jobs: Number of models at a time. They share the cores.

    Raises:
        RuntimeError: If a training or a quantization failed. All others are done first. The message names the log.
    """
    num_threads = max(1, (os.cpu_count() or 1) // jobs)
    tasks = [_Task(base, subject, work_dir, plan, num_threads) for subject in subjects]
    failures: list[str] = []
    with ThreadPool(jobs) as pool:
        # models from which others start come first
        for is_late, title in enumerate(('models', 'fine-tuned models')):
            stage = [
                task
                for task in tasks
                if task.subject.is_fine_tuned == bool(is_late)
                and (not is_late or (work_dir / task.subject.start.name / RESULT).exists())
            ]
            failures += filter(None, track(pool.imap_unordered(_run_apart, stage), title, len(stage)))
    if failures:
        raise RuntimeError(f'{len(failures)} of {len(tasks)} models failed; the others are kept. {failures[0]}')
    return [read_measurement(work_dir / subject.name) for subject in subjects]


def _run_apart(task: _Task) -> str | None:
    """Run a task in a process of its own, because the Runner keeps global state, and threads are set for a process.

    Returns:
        str | None: Reason of a failure; None after success.
    """
    folder = task.work_dir / task.subject.name
    if (folder / RESULT).exists() and is_trained(task.base, task.subject, task.work_dir, task.plan):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context('spawn').Process(target=_run_task, args=(task,))
    process.start()
    process.join()
    if not process.exitcode:
        return None
    log = folder / LOG
    lines = log.read_text().splitlines() if log.exists() else []
    return f'{task.subject.name}: {lines[-1] if lines else "no reason given"} (all of it in {log})'


def _run_task(task: _Task) -> None:
    torch.set_num_threads(task.num_threads)
    folder = task.work_dir / task.subject.name
    with open(folder / LOG, 'a') as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            cfg, checkpoint = train_subject(task.base, task.subject, task.work_dir, task.plan)
            measure_subject(cfg, checkpoint, task.subject, folder)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
