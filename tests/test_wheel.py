"""What a wheel holds, and that the commands work from it in an empty folder."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from tool_runs import ROOT, run_python

SOURCES = ['setup.py', 'pyproject.toml', 'README.md', 'model-index.yml', 'mmrepvgg', 'configs', 'tools']


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel installs."""
    source = tmp_path_factory.mktemp('source')  # the build leaves files beside setup.py
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    done = run_python('-c', "from setuptools import build_meta as b; b.build_wheel('.')", cwd=source, PYTHONPATH='')
    assert done.returncode == 0, done.stderr
    (wheel,) = source.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(source / 'installed')
    return source / 'installed'


def test_the_wheel_holds_what_openmmlabs_tools_look_for(installed):
    package = installed / 'mmrepvgg'
    assert (package / 'py.typed').is_file()
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*.py'):
            # these need studies/ and examples/, which are in the repository only
            is_shipped = not re.search(r'^from (studies|examples)', path.read_text(), re.M)
            assert (package / '.mim' / path.relative_to(ROOT)).is_file() == is_shipped, path
    for line in (package / '.mim/model-index.yml').read_text().splitlines():
        if line.startswith('  - '):
            assert (package / '.mim' / line.removeprefix('  - ')).is_file()
    (entry_points,) = installed.glob('*.dist-info/entry_points.txt')
    assert entry_points.read_text().split() == ['[console_scripts]', 'mmrepvgg', '=', 'mmrepvgg.commands.main:main']


def test_commands_work_from_it_in_an_empty_folder(installed, tmp_path):
    def run(*args: object) -> str:
        done = run_python(*args, cwd=tmp_path, PYTHONPATH=str(installed))
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "from mmrepvgg.zoo.configs import find_config; print(find_config('deploy/repvgg-a0_deploy'))"
    assert run('-c', code) == f'{installed}/mmrepvgg/.mim/configs/repvgg/deploy/repvgg-a0_deploy.py\n'
    for command in (['-m', 'mmrepvgg', 'flops'], [installed / 'mmrepvgg/.mim/tools/get_flops.py']):
        assert re.search(r'\| total +\| +9,108,968 \| ', run(*command, 'deploy/repvgg-a0_deploy'))
