"""The whole study: every model in both forms through every toolchain, in every mode."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmrepvgg.checkpoints.reading import hash_file
from mmrepvgg.handoff.listing import read_list
from mmrepvgg.handoff.outputs import read_outputs
from mmrepvgg.handoff.scoring import score_outputs
from mmrepvgg.progress import track

from .files import FORMS, write_images, write_model
from .models import Model
from .toolchains import Environment

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """One run of an adapter.

    Attributes:
        model: Name of the model.
        form: ``'plain'`` or ``'equalized'``.
        environment: The toolchain.
        mode: ``'float'``, ``'per-tensor'`` or ``'per-channel'``.
        source: The float file.
        out: The outputs, which score-outputs takes.
    """

    model: str
    form: str
    environment: Environment
    mode: str
    source: Path
    out: Path

    def __str__(self) -> str:
        return f'{self.environment.toolchain.title}, {self.mode}, {self.model}, {self.form}'

    @property
    def log(self) -> Path:
        """What the toolchain printed."""
        return self.out.with_suffix('.log')


@dataclass(frozen=True)
class Result:
    """The result of a run: top-1 accuracy on the test images in percent, or the reason of a failure."""

    run: Run
    accuracy: float | None = None
    failure: str = ''


def run_study(
    cfg: Config,
    models: Sequence[Model],
    environments: Sequence[Environment],
    modes: Sequence[str],
    work_dir: Path,
    num_samples: int,
    data: Path | None = None,
) -> list[Result]:
    """Run every toolchain on every model. Outputs in ``work_dir`` are not made again.

    Args:
        cfg: The config of the models and their data.
        models: The models.
        environments: The toolchains.
        modes: The modes of each.
        work_dir: Folder that gets images, files, outputs and logs.
        num_samples: Number of training images for the calibration.
        data: Image or folder of images by which the models are equalized. Default: their weights alone.
    """
    settings = _identify(str(cfg.to_dict()), str(num_samples))
    calibration, test = write_images(cfg, work_dir / f'images-{settings}', num_samples)
    runs: list[Run] = []
    for model in models:
        folder = work_dir / f'{model.name}-{_identify(settings, str(data), hash_file(model.checkpoint))}'
        for form in FORMS:
            suffixes = {environment.toolchain.suffix for environment in environments}
            write_model(cfg, model, form, folder, suffixes, data)
            runs += [
                Run(model.name, form, environment, mode, (folder / form).with_suffix(environment.toolchain.suffix),
                    folder / f'{environment.toolchain.name}_{form}_{mode}.npz')
                for environment in environments
                for mode in modes
            ]  # fmt: skip
    return [_run(run, calibration, test) for run in track(runs, 'toolchains')]


def _identify(*parts: str) -> str:
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:8]


def _run(run: Run, calibration: Path, test: Path) -> Result:
    if not run.out.exists() and (failure := _call_adapter(run, calibration, test)):
        return Result(run, failure=failure)
    listing = read_list(test)
    score = score_outputs(listing, read_outputs([run.out], listing))
    if score.problems:
        problem = score.problems[0]
        return Result(run, failure=f'{run.out}: {problem.kind} {problem.name} {problem.reason}')
    return Result(run, score.get_accuracy(1))


def _call_adapter(run: Run, calibration: Path, test: Path) -> str:
    """Run the adapter in its environment.

    Returns:
        str: Reason of a failure, empty after success.
    """
    python = run.environment.python
    command: list[str | Path] = [
        *(python, '-m', f'{__package__}.adapters.{run.environment.toolchain.name}'),
        *(run.source.resolve(), calibration.resolve(), test.resolve(), run.out.resolve(), '--mode', run.mode),
    ]
    # as when the environment is activated: ExecuTorch calls a program of its own
    path = os.pathsep.join([str(python.parent.resolve()), os.environ.get('PATH', '')])
    environment = {**os.environ, 'PATH': path, 'PYTHONPATH': str(_ROOT)}
    with open(run.log, 'w') as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    if not done.returncode:
        return ''
    lines = run.log.read_text(errors='replace').strip().splitlines()
    return f'{lines[-1] if lines else "no reason given"} (all of it in {run.log})'
