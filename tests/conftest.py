"""Fixtures that all tests share."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import browser  # noqa: F401 -- a fixture
from filelock import FileLock
from missing_runtimes import WITHOUT_EXECUTORCH
from mmengine.config import Config
from small_classifier import SMALL_CLASSIFIER
from tool_runs import SMALL, succeed, succeed_here, train
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrepvgg import build_classifier
from mmrepvgg.runtimes.export import export_model

collect_ignore_glob = ['test_executorch*.py'] if WITHOUT_EXECUTORCH else []


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Give every batch norm statistics, gains and biases of its own; at their initial values wrong fusions pass."""

    def apply(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)

        def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

        for module in model.modules():
            if isinstance(module, _BatchNorm):
                if module.running_mean is not None:
                    uniform(module.running_mean, -0.5, 0.5)
                    uniform(module.running_var, 0.5, 2.0)
                if module.weight is not None:
                    uniform(module.weight, 0.5, 1.0)
                    uniform(module.bias, -0.3, 0.3)
        return model

    return apply


@pytest.fixture
def make(randomise: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    """Make a model ready for a comparison: random statistics, float64, eval mode."""
    return lambda model: randomise(model).double().eval()


@pytest.fixture
def small_cfg() -> Config:
    """A classifier of 5 blocks with SE layers for 32x32 images, with a mean and a std that differ by channel."""
    return Config(
        dict(
            model=copy.deepcopy(SMALL_CLASSIFIER),
            data_preprocessor=dict(mean=[120.0, 110.0, 90.0], std=[60.0, 50.0, 70.0], to_rgb=True),
            test_dataloader=dict(
                dataset=dict(
                    type='CustomDataset',
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='Resize', scale=32),
                        dict(type='PackInputs'),
                    ],
                )
            ),
            default_scope='mmpretrain',
        )
    )


@pytest.fixture(scope='session')
def small_source(randomise, tmp_path_factory) -> Path:
    """A train-form checkpoint of ``small_cfg`` with 10 classes, ``'a'`` to ``'j'``."""
    torch.manual_seed(0)
    model = randomise(build_classifier(SMALL_CLASSIFIER))
    # logits that differ between images
    torch.nn.init.normal_(model.head.fc.weight)
    path = tmp_path_factory.mktemp('source') / 'train.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=list('abcdefghij')))), path)
    return path


@pytest.fixture(scope='session')
def export_once(small_source, tmp_path_factory) -> Callable[..., tuple[Any, Path]]:
    """Export ``small_source`` with ``cfg`` as ``name``, once in a session for the same arguments."""
    done: dict[str, tuple[Any, Path]] = {}

    def export(cfg: Config, suffix: str, **options: Any) -> tuple[Any, Path]:
        key = f'{suffix} {sorted(options.items())}'
        if key not in done:
            path = tmp_path_factory.mktemp('exported') / f'net{suffix}'
            done[key] = export_model(cfg, small_source, path, **options), path
        return done[key]

    return export


@pytest.fixture(scope='session')
def made_once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder of a name, filled by a function, once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == 'master' else base.parent

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        with FileLock(base / f'{name}.lock'):
            if not (base / name).exists():
                (base / f'{name}_unfinished').mkdir(exist_ok=True)
                fill(base / f'{name}_unfinished')
                (base / f'{name}_unfinished').rename(base / name)
        return base / name

    return make


@pytest.fixture(scope='session')
def digit_images(made_once) -> Path:
    """The folder data/digits. Tests that change images copy them first."""
    return made_once('images', lambda folder: succeed_here('prepare-digits', cwd=folder)) / 'data/digits'


@pytest.fixture(scope='session')
def digits(digit_images, made_once) -> Path:
    """A folder with data/digits, ``small.pth`` (tests/configs/digits_small.py, trained) and ``small_deploy.pth``.

    Made by the tools. Tests write into folders of their own.
    """

    def fill(folder: Path) -> None:
        (folder / 'data').symlink_to(digit_images.parent)
        (folder / 'train.log').write_text(train(SMALL, '--work-dir', 'small', cwd=folder))
        (folder / 'small/epoch_6.pth').rename(folder / 'small.pth')
        report = succeed('reparameterize_model', SMALL, 'small.pth', 'new.pth', '--data', 'data/digits/val', cwd=folder)
        (folder / 'reparameterize.log').write_text(report)
        (folder / 'new.pth').rename(folder / 'small_deploy.pth')

    return made_once('digits', fill)


@pytest.fixture
def workspace(digits, tmp_path) -> Path:
    """An empty folder in which ``data/digits``, ``small.pth`` and ``small_deploy.pth`` can be read."""
    for name in ('data', 'small.pth', 'small_deploy.pth'):
        (tmp_path / name).symlink_to(digits / name)
    return tmp_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if WITHOUT_EXECUTORCH else ():
        if re.search(r'executorch|\.pte\b|all_extras_fit', item.nodeid, re.IGNORECASE):
            item.add_marker(pytest.mark.skip(reason='ExecuTorch is for torch 2.12'))
