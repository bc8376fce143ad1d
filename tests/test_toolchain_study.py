"""The study of other quantizers: those that are installed here run for real, and what goes wrong is said."""

import copy
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tool_runs import SMALL, run_tool

from mmrepvgg import load_config
from mmrepvgg.runtimes.loading import load_exported
from studies.toolchains.files import EQUALIZED, PLAIN
from studies.toolchains.models import Model
from studies.toolchains.report import format_report
from studies.toolchains.run import Result, Run, run_study
from studies.toolchains.toolchains import TOOLCHAINS, Environment, find_environment

NUM_TEST = 60


@pytest.fixture(scope='module')
def study(digits, tmp_path_factory):
    """A function that runs the study on a small model, with a toolchain that is not installed, and its work dir."""
    work_dir = tmp_path_factory.mktemp('work')
    cfg = load_config(str(SMALL))
    for name, split in (('train', 'train'), ('test', 'val')):
        cfg[f'{name}_dataloader'].dataset.update(data_root=str(digits / 'data/digits'), data_prefix=split)
    cfg.test_dataloader.dataset.indices = list(range(0, 360, 360 // NUM_TEST))
    installed = [find_environment(TOOLCHAINS[name], Path('nowhere')) for name in ('onnxruntime', 'nncf')]
    environments = [*installed, Environment(TOOLCHAINS['rknn'], Path(sys.executable), {})]

    def run():
        # to build a model changes its config
        own = copy.deepcopy(cfg)
        return run_study(own, [Model('small', digits / 'small.pth')], environments, ['per-tensor'], work_dir, 20)

    return run, work_dir


@pytest.fixture(scope='module')
def results(study):
    return study[0]()


def test_toolchains_make_int8_of_both_forms(results, study):
    done = [result for result in results if not result.failure]
    assert [(result.run.environment.toolchain.name, result.run.form) for result in done] == [
        (name, form) for form in (PLAIN, EQUALIZED) for name in ('onnxruntime', 'nncf')
    ]
    (test,) = study[1].glob('images-*/test/inputs')
    for result in done:
        assert result.accuracy >= 90
        network = load_exported(result.run.source)
        outputs = np.load(result.run.out)
        images = [np.load(test / f'{name}.npz')['images'] for name in outputs['names']]
        assert len(images) == NUM_TEST
        expected = np.concatenate([network(torch.from_numpy(image)).numpy() for image in images])
        noise = np.abs(outputs['scores'] - expected).max() / np.abs(expected).max()
        assert 1e-3 < noise < 0.2, 'int8 has noise, and not too much of it'
    plain, equalized = (
        torch.load(path) for path in (done[0].run.source.with_suffix('.pth'), done[2].run.source.with_suffix('.pth'))
    )
    assert plain['state_dict'].keys() == equalized['state_dict'].keys()
    assert any(not value.equal(equalized['state_dict'][key]) for key, value in plain['state_dict'].items())


def test_a_failure_names_its_log(results):
    failures = [result for result in results if result.failure]
    assert [result.run.environment.toolchain.name for result in failures] == ['rknn', 'rknn']
    assert failures[0].failure == f"ModuleNotFoundError: No module named 'rknn' (all of it in {failures[0].run.log})"
    assert 'Traceback' in failures[0].run.log.read_text()


def test_nothing_is_done_again(results, study):
    run, work_dir = study
    before = read_times(work_dir)
    assert len(before) == NUM_TEST + 1 + 4 + 4, 'images, calibration, float files, outputs'
    assert [result.accuracy for result in run()] == [result.accuracy for result in results]
    assert read_times(work_dir) == before


def read_times(folder):
    suffixes = ('.npz', '.npy', '.onnx', '.pth')
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.suffix in suffixes}


def test_report():
    litert = Environment(TOOLCHAINS['litert'], Path('python'), {'litert-torch': '1.2', 'ai-edge-litert': '3.4'})
    results = [
        Result(Run('a', form, litert, mode, Path('a.pt2'), Path('a.npz')), accuracy)
        for form, mode, accuracy in (
            (PLAIN, 'float', 98.0),
            (PLAIN, 'per-tensor', 9.7222),
            (EQUALIZED, 'float', 98.0),
            (EQUALIZED, 'per-tensor', None),
        )
    ]
    text = re.sub(' +', ' ', format_report(results, {TOOLCHAINS['rknn']: 'rknn/bin/python does not exist'}))
    assert '| toolchain | weights | a |' in text
    assert '| LiteRT | float | 98.00 -> 98.00 |' in text
    assert '| LiteRT | per-tensor | 9.72 -> failed |' in text
    assert 'litert-torch 1.2, ai-edge-litert 3.4.' in text
    assert 'Rockchip RKNN, simulator was not run: rknn/bin/python does not exist.' in text


@pytest.mark.parametrize(
    ('arguments', 'code', 'message'),
    [
        (['nowhere.pth'], 1, 'nowhere.pth does not exist'),
        (['folder'], 1, 'folder/trained.json does not exist'),
        (['a.pth', 'b/a.pth'], 1, 'the names of the files must differ, got a, a'),
        (['a.pth', '--toolchains', 'rknn'], 1, 'no toolchain can be run: .venv-toolchains/rknn/bin/python does not'),
        (['a.pth', '--toolchains', 'tvm'], 2, "invalid choice: 'tvm'"),
        (['a.pth', '--work-dir', 'a.pth'], 1, 'a.pth/images can not be written: '),
    ],
)  # fmt: skip
def test_bad_usage(tmp_path, arguments, code, message):
    for path in ('folder', 'b'):
        (tmp_path / path).mkdir()
    for path in ('a.pth', 'b/a.pth'):
        (tmp_path / path).touch()
    done = run_tool('toolchain_study', *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
