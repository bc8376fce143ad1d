"""The command ``mmrepvgg doctor``: in the environment of the tests, and in broken ones."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from tool_runs import ROOT, run_python

from mmrepvgg.environment.advice import advise
from mmrepvgg.environment.checks import check_switch, check_torch
from mmrepvgg.environment.distributions import find_version
from mmrepvgg.environment.examination import Environment, examine_environment
from mmrepvgg.environment.report import format_environment, to_json


@pytest.fixture(scope='module')
def environment() -> Environment:
    return examine_environment()


class TestHere:
    def test_nothing_is_wrong_where_the_tests_pass(self, environment):
        assert environment.problems == ()
        assert environment.versions['torch'] == torch.__version__.partition('+')[0]
        assert 'setuptools' in environment.versions
        assert 0 < environment.difference < 1e-5

    def test_the_text_has_all_of_it(self, environment):
        text = format_environment(environment)
        assert re.search(r'^\| mmpretrain +\| 1\.\d', text, re.M)
        assert re.search(r'^\| onnx +\| onnx 1\..*, onnxruntime 1\..*\| works +\|$', text, re.M)
        assert re.search(r'^CPU: .* threads in torch', text, re.M)
        assert text.endswith('\nnothing is wrong')

    def test_json_has_the_same(self, environment):
        found = json.loads(to_json(environment))
        assert found['versions'] == environment.versions
        assert {extra['name'] for extra in found['extras']} >= {'onnx', 'openvino', 'ncnn'}


def write_metadata(folder: Path, name: str, version: str, *needs: str) -> None:
    """Let a package seem to be installed."""
    place = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    place.mkdir()
    lines = ['Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}', *(f'Requires-Dist: {x}' for x in needs)]
    (place / 'METADATA').write_text('\n'.join(lines) + '\n')


class TestBroken:
    """Packages and their metadata in a folder that comes first on the path."""

    def test_each_fault_is_named_with_what_to_do(self, tmp_path):
        modules = dict(
            cv2="raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
            torch='import os, signal; os.kill(os.getpid(), signal.SIGILL)',
            torchvision="raise RuntimeError('operator torchvision::nms does not exist')",
            onnxruntime="raise ImportError('lack of something')",
        )
        for name, text in modules.items():
            (tmp_path / f'{name}.py').write_text(text)
        versions = {
            **{'mmcv': '2.2.0', 'mmcv-lite': '2.2.0', 'setuptools': '82.0.1', 'numpy': '1.20.0', 'onnx': '1.2'},
            **{'opencv-python': '5.0.0', 'opencv-python-headless': '4.9.0'},
        }
        for name, number in versions.items():
            write_metadata(tmp_path, name, number)
        needs = ['numpy>=1.26', 'setuptools<82,>=65', 'onnx>=1.19; extra == "onnx"']
        write_metadata(tmp_path, 'mmrepvgg', '0.1.0', *needs)
        mmcvs = ['mmcv', 'mmcv-lite', *(['onedl-mmcv'] if find_version('onedl-mmcv') else [])]
        done = run_python('-m', 'mmrepvgg', 'doctor', cwd=tmp_path, PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
        assert (done.returncode, done.stderr) == (1, '')
        wrong = re.findall(r'^wrong: (.*)\n  do: (.*)$', done.stdout, re.M)
        expected = {
            r'numpy 1\.20\.0 is outside >=1\.26': r'pip install "numpy>=1\.26"',
            r'setuptools 82\.0\.1 is outside .* \(mmengine imports pkg_resources': r'pip install "setuptools<82,>=65"',
            r'onnx 1\.2 is outside >=1\.19, which the extra onnx asks for': r'pip install "onnx>=1\.19"',
            f'{" and ".join(mmcvs)} are installed: builds of one package': f'pip uninstall -y {" ".join(mmcvs)}, then ',
            r'opencv-python 5\.0\.0 and opencv-python-headless 4\.9\.0 are': r'pip uninstall -y opencv-python opencv',
            r'cv2 can not be used: ImportError: libGL\.so\.1': r'.*apt-get install libgl1 .* opencv-python-headless',
            r'torch can not be used: ended the process by SIGILL': r'.* the CPU lacks: take another version',
            r'torchvision can not be used: .*nms does not exist': r'torch and torchvision must be a pair',
            r'onnxruntime can not be used: ImportError: lack': r'pip install --force-reinstall --no-deps onnxruntime',
        }
        assert len(wrong) == len(expected), wrong
        for what, remedy in expected.items():
            assert any(re.match(what, found) and re.match(remedy, do) for found, do in wrong), (what, wrong)

    def test_it_runs_where_nothing_is_installed(self, tmp_path):
        needs = ['torch>=2.11', 'onnx>=1.19; extra == "onnx"', 'pytest; extra == "test"']
        write_metadata(tmp_path, 'mmrepvgg', '0.1.0', *needs)
        code = (
            f'import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n'
            "from mmrepvgg.commands.main import main; main(['doctor'])"
        )
        done = run_python('-I', '-S', '-c', code, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1, '')
        assert 'wrong: torch not installed\n  do: pip install "torch>=2.11"\n' in done.stdout
        assert 'wrong: mmcv is not installed\n  do: pip install "mmcv-lite>=2.1,<2.3"\n' in done.stdout
        assert 'wrong: cv2 needs cv2, which is not installed\n  do: pip install "opencv-python"' in done.stdout
        assert re.search(r'^\| onnx +\| onnx +\| not installed \|$', done.stdout, re.M)
        assert 'pytest' not in done.stdout


class TestWhatNoTestMachineHas:
    def test_a_gpu_that_torch_can_not_use(self):
        (problem,) = check_torch(dict(gpu_error='no kernel image is available', cuda='13.0'), has_nvidia_gpu=True)
        assert problem.what == 'torch can not use the GPU: no kernel image is available'
        (problem,) = check_torch(dict(cuda='13.0', gpus=[]), has_nvidia_gpu=True)
        assert problem.what.startswith('torch sees no GPU')
        assert not list(check_torch(dict(gpu_error='no driver', cuda='13.0'), has_nvidia_gpu=False))

    @pytest.mark.parametrize('difference', [0.1, float('nan')])
    def test_a_switch_that_changes_the_function(self, difference):
        (problem,) = check_switch(dict(difference=difference))
        assert 'differ by' in problem.what

    def test_advice_follows_from_the_instructions(self):
        hardware = dict(
            **dict(instructions=['AVX-512', 'AVX2'], omp_num_threads='8', usable_cores=2),
            **dict(shared_memory_gb=0.064, has_nvidia_gpu=True),
        )
        amp, int8, threads, shared, build = advise(hardware, dict(cuda='', gpus=[]))
        assert 'slower than float32' in amp
        assert 'no instructions' in int8
        assert 'OMP_NUM_THREADS is 8, with 2 cores' in threads
        assert '--shm-size=8g' in shared
        assert 'for CPUs' in build
        hardware |= dict(instructions=['NEON int8 products', 'NEON bf16'], omp_num_threads='', has_nvidia_gpu=False)
        amp, int8, _ = advise(hardware, {})
        assert amp.endswith('(NEON bf16)')
        assert int8.endswith('(NEON int8 products)')
