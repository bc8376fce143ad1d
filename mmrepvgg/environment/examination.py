"""The examination of an environment: versions, runtimes, the machine, and what is wrong."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..runtimes.format import Format
from ..runtimes.table import FORMATS
from .advice import advise
from .checks import (
    MMCV_BUILDS,
    OPENCV_BUILDS,
    Problem,
    check_mmcv,
    check_needs,
    check_opencv,
    check_python,
    check_switch,
    check_torch,
    check_trials,
)
from .distributions import Need, find_version, list_needs
from .hardware import describe_hardware
from .trials import Trial, run_trials

# In the order in which they import each other. The last builds a network and switches it.
_STACK = ('numpy', 'cv2', 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'mmrepvgg.registry', 'switch')


@dataclass(frozen=True)
class Extra:
    """One extra of this project.

    Attributes:
        name: Name of the extra.
        needs: Packages that it brings.
        state: Whether it can be used here, in words.
    """

    name: str
    needs: tuple[Need, ...]
    state: str


@dataclass(frozen=True)
class Environment:
    """What was found.

    Attributes:
        versions: Versions of the packages under everything, by their names; empty for what is not installed.
        mmcv_operators: Whether mmcv has its compiled operators.
        extras: What the extras of this project bring.
        hardware: The machine (:func:`mmrepvgg.environment.hardware.describe_hardware`).
        torch: What torch says of the machine.
        compilers: What mmengine says of compilers and CUDA.
        difference: Largest difference of the two forms of a small network, of its largest output; None if unknown.
        advice: What follows for the use of this machine.
        problems: What is wrong.
    """

    versions: dict[str, str]
    mmcv_operators: bool
    extras: tuple[Extra, ...]
    hardware: dict[str, Any]
    torch: dict[str, Any]
    compilers: dict[str, Any]
    difference: float | None
    advice: tuple[str, ...]
    problems: tuple[Problem, ...]


def examine_environment() -> Environment:
    """Try what is installed, in processes of its own, and say what is there and what is wrong.

    Nothing of it has to work: this imports the standard library alone.
    """
    needs = list_needs()
    hardware = describe_hardware()
    runnable = [row for row in FORMATS if row.packages and not row.find_obstacle()]
    runtimes = [package for row in runnable for package in row.packages if find_spec(package)]
    operators = ['mmcv.ops'] if find_version('mmcv') or find_version('onedl-mmcv') else []
    with ThreadPoolExecutor() as pool:
        stack, others = pool.map(run_trials, ([*_STACK, *operators], runtimes))
    trials = {trial.name: trial for trial in (*stack, *others)}
    torch = trials['torch'].found
    problems = [
        *check_python(),
        *check_needs(needs),
        *check_mmcv(),
        *check_opencv(),
        *check_trials([*stack, *others]),
        *check_torch(torch, has_nvidia_gpu=hardware['has_nvidia_gpu']),
        *check_switch(trials['switch'].found),
    ]
    return Environment(
        versions=_list_versions(needs),
        mmcv_operators='mmcv.ops' in trials and not trials['mmcv.ops'].error,
        extras=tuple(_list_extras(needs, trials)),
        hardware=hardware,
        torch=torch,
        compilers=trials['mmengine'].found,
        difference=trials['switch'].found.get('difference'),
        advice=tuple(advise(hardware, torch)),
        problems=tuple(problems),
    )


def _list_versions(needs: Iterable[Need]) -> dict[str, str]:
    """Versions of what is always needed, and of the builds of mmcv and OpenCV that are there."""
    versions = {need.name: need.version for need in needs if not need.extra}
    builds = {name: find_version(name) for name in (*MMCV_BUILDS, *OPENCV_BUILDS)}
    return versions | {name: version for name, version in builds.items() if version}


def _list_extras(needs: Iterable[Need], trials: dict[str, Trial]) -> Iterable[Extra]:
    by_extra: dict[str, list[Need]] = {}
    for need in needs:
        if need.extra and need.extra != 'mmcv-lite':  # which is in the versions, or a substitute is
            by_extra.setdefault(need.extra, []).append(need)
    formats = {extra: row for row in FORMATS for extra in (row.extra, row.writing_extra) if extra}
    for name, brought in by_extra.items():
        yield Extra(name, tuple(brought), _describe_state(name, brought, formats.get(name), trials))


def _describe_state(name: str, needs: list[Need], row: Format | None, trials: dict[str, Trial]) -> str:
    missing = [need.name for need in needs if not need.version]
    if missing:
        lacks = '' if len(missing) == len(needs) else f', lacks {", ".join(missing)}'
        return f'not installed{lacks}'
    if not all(need.fits for need in needs):
        return 'versions do not fit'
    if row is None:
        return 'installed'
    if any(trials[package].error for package in row.packages if package in trials):
        return 'can not be imported'
    obstacle = row.find_obstacle()
    return f'writes files; does not run them: {obstacle}' if obstacle else 'works'
