"""What the wheel and the source archive hold, and that all of it works in an empty folder, away from any clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from tool_runs import ROOT, run_python

import mmrepvgg

FOLDERS = ('configs', 'docs', 'examples', 'mmrepvgg', 'studies', 'tests', 'tools')
# as mim's own script, whose first line names the Python of another environment
MIM = ('python', '-W', 'ignore', '-m', 'mim')
SMALL = """
_base_ = 'mmrepvgg::repvgg/repvgg-a0_digits.py'
model = dict(backbone=dict(arch=dict(_delete_=True, num_blocks=[1, 1, 2, 1], width_factor=[0.5, 0.5, 0.5, 0.5])))
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]
"""
# a type checker of the user's, without the time that torch takes
MYPY = """
[mypy]
follow_imports = silent
[mypy-torch.*,numpy.*,rich.*,onnx.*,mmengine.*,cv2.*,ray.*,pyarrow.*]
follow_imports = skip
follow_imports_for_stubs = True
"""
PROGRAM = """
from mmrepvgg import Predictor, RepVGG, load_config, train
import mmrepvgg

cfg = load_config('repvgg-a0_digits')
names: list[str] = [each.name for each in Predictor(cfg, 'a.onnx').predict(['a.png'])[0].classes]
trained: str | None = train(cfg, 'work_dir')
number: int = mmrepvgg.export_model(cfg, 'a.pth', 'a.onnx').difference
train(cfg)
mmrepvgg.absent
"""


def build(kind: str, source: Path, out: Path) -> Path:
    """Build the wheel or the sdist of a folder."""
    code = f'from setuptools import build_meta as b; print(b.build_{kind}({str(out)!r}))'
    done = run_python('-c', code, cwd=source, PYTHONPATH='')
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> Path:
    """A folder with a wheel, an sdist, and in ``from_sdist`` the wheel that is built of that."""
    folder = tmp_path_factory.mktemp('built')
    source = folder / 'source'  # a build leaves files beside setup.py
    ignore = shutil.ignore_patterns('__pycache__', 'node_modules', '*.egg-info')
    for path in ROOT.iterdir():
        if path.name in FOLDERS:
            shutil.copytree(path, source / path.name, ignore=ignore)
        elif path.is_file():
            source.mkdir(exist_ok=True)
            shutil.copy(path, source)
    build('wheel', source, folder)
    with tarfile.open(build('sdist', source, folder)) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    build('wheel', unpacked, folder / 'from_sdist')
    return folder


@pytest.fixture(scope='module')
def bin_folder(built) -> Path:
    """The commands of a new environment, into which pip has installed the wheel; the stack is that of the tests."""
    folder = built / 'environment'
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob('lib/*/site-packages')
    # a path alone: the .pth files there, one of which points to this clone, are not read
    (packages / 'stack.pth').write_text(sysconfig.get_path('purelib'))
    (wheel,) = built.glob('*.whl')
    options = ['--no-deps', '--no-index', '--ignore-installed', '--disable-pip-version-check', '--quiet']
    subprocess.run([folder / 'bin/python', '-m', 'pip', 'install', *options, wheel], check=True, env=make_env())
    return folder / 'bin'


def make_env() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'} | dict(OMP_NUM_THREADS='1')


def run(bin_folder: Path, *command: str, cwd: Path, status: int = 0) -> str:
    """What a command of the environment prints."""
    path = f'{bin_folder}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(
        [bin_folder / command[0], *command[1:]],
        cwd=cwd,
        env=make_env() | dict(PATH=path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


class TestContents:
    def test_the_wheel_holds_what_openmmlabs_tools_look_for(self, bin_folder):
        (package,) = bin_folder.parent.glob('lib/*/site-packages/mmrepvgg')
        for path in (ROOT / 'mmrepvgg').rglob('*'):  # templates and pages, too
            if path.is_file() and path.suffix != '.pyc' and 'node_modules' not in path.parts:
                assert (package / path.relative_to(ROOT / 'mmrepvgg')).is_file(), path
        for folder in ('configs', 'tools'):
            for path in (ROOT / folder).rglob('*.py'):
                # these need studies/ and examples/, which are in the repository only
                is_shipped = not re.search(r'^from (studies|examples)', path.read_text(), re.M)
                assert (package / '.mim' / path.relative_to(ROOT)).is_file() == is_shipped, path
        (metafile,) = yaml.safe_load((package / '.mim/model-index.yml').read_text())['Import']
        for model in yaml.safe_load((package / '.mim' / metafile).read_text())['Models']:
            assert (package / '.mim' / model['Config']).is_file()

    def test_the_metadata_says_for_whom_it_is(self, built):
        (wheel,) = built.glob('*.whl')
        with zipfile.ZipFile(wheel) as archive:
            metadata = archive.read(f'mmrepvgg-{mmrepvgg.__version__}.dist-info/METADATA').decode()
            entry_points = archive.read(f'mmrepvgg-{mmrepvgg.__version__}.dist-info/entry_points.txt').decode()
        for line in ('Requires-Python: >=3.10,<3.14', 'License: Apache-2.0', 'Classifier: Typing :: Typed'):
            assert f'\n{line}\n' in metadata
        assert entry_points.split() == ['[console_scripts]', 'mmrepvgg', '=', 'mmrepvgg.commands.main:main']

    def test_the_sdist_is_the_repository(self, built):
        (unpacked,) = (built / 'unpacked').iterdir()
        files = [path.name for path in ROOT.iterdir() if path.is_file() and not path.name.startswith('.')]
        assert {'CHANGELOG.md', 'Makefile', 'constraints.txt', 'install.sh'} <= set(files)
        for path in [*files, *(path for name in FOLDERS for path in (built / 'source' / name).rglob('*'))]:
            name = os.path.relpath(built / 'source' / path, built / 'source')
            assert (unpacked / name).exists(), name

    def test_the_wheel_of_the_sdist_is_the_same(self, built):
        contents = []
        for folder in (built, built / 'from_sdist'):
            (wheel,) = folder.glob('*.whl')
            with zipfile.ZipFile(wheel) as archive:
                contents.append({name: archive.read(name) for name in archive.namelist()})
        assert contents[0] == contents[1]


def test_types_are_seen_by_a_type_checker(bin_folder, tmp_path):
    pytest.importorskip('mypy')
    (tmp_path / 'mypy.ini').write_text(MYPY)
    (tmp_path / 'program.py').write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, '-m', 'mypy', '--python-executable', bin_folder / 'python', 'program.py'],
        **dict(cwd=tmp_path, env=make_env(), capture_output=True, text=True),
    )
    errors = re.findall(r'^program\.py:(\d+): error: .*\[([\w-]+)\]$', done.stdout, re.M)
    assert errors == [('8', 'assignment'), ('9', 'call-arg'), ('10', 'attr-defined')], done.stdout


class TestUse:
    """The command and mim, in a folder that has the digits alone."""

    def test_the_command_is_there(self, bin_folder, tmp_path):
        assert run(bin_folder, 'mmrepvgg', '--version', cwd=tmp_path) == f'mmrepvgg {mmrepvgg.__version__}\n'

    def test_mim_runs_a_tool_on_a_config_by_its_name(self, bin_folder, tmp_path):
        out = run(bin_folder, *MIM, 'run', 'mmrepvgg', 'get_flops', 'deploy/repvgg-a0_deploy', cwd=tmp_path)
        assert re.search(r'\| total +\| +9,108,968 \| ', out)

    def test_mim_finds_the_models(self, bin_folder, tmp_path):
        code = (
            'from mim.commands.list import list_package\n'
            'from mim.commands.search import get_model_info\n'
            'print([name for name, *_ in list_package() if name == "mmrepvgg"])\n'
            'print(get_model_info("mmrepvgg", shown_fields=["config", "weight"]).loc["repvgg-a0_8xb32"].to_list())\n'
        )
        listed, found = run(bin_folder, 'python', '-W', 'ignore', '-c', code, cwd=tmp_path).splitlines()
        assert listed == "['mmrepvgg']"
        assert found.startswith("['configs/repvgg/repvgg-a0_8xb32.py', 'https://download.openmmlab.com/")

    def test_mim_trains_and_tests_a_config_with_a_base_of_the_package(self, bin_folder, digit_images, tmp_path):
        (tmp_path / 'data').symlink_to(digit_images.parent)
        (tmp_path / 'mine.py').write_text(SMALL)
        trained = run(bin_folder, *MIM, 'train', 'mmrepvgg', 'mine.py', '--gpus', '0', cwd=tmp_path)
        assert f'trained: {tmp_path}/work_dirs/mine/epoch_1.pth\n' in trained
        weights = 'work_dirs/mine/epoch_1.pth'
        tested = run(
            bin_folder, *MIM, 'test', 'mmrepvgg', 'mine.py', '--checkpoint', weights, '--gpus', '0', cwd=tmp_path
        )
        assert re.search(r'^accuracy/top1: \d+\.\d{4}$', tested, re.M)
