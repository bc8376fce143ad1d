"""The extras of setup.py: they fit together in one environment, and bring what the formats need."""

import importlib.metadata
from distutils.core import run_setup

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tool_runs import ROOT

from mmrepvgg.environment.distributions import find_version
from mmrepvgg.runtimes.table import FORMATS


@pytest.fixture(scope='module')
def extras():
    """The requirements of each extra; those of no extra have the name ''."""
    found = run_setup(str(ROOT / 'setup.py'), stop_after='init')
    texts = {'': list(found.install_requires)}
    for name, requirements in found.extras_require.items():
        # older setuptools put those with a marker under extra:marker
        texts.setdefault(name.partition(':')[0], []).extend(requirements)
    return {name: [Requirement(text) for text in requirements] for name, requirements in texts.items()}


def applies(requirement, extra=''):
    return requirement.marker is None or requirement.marker.evaluate(default_environment() | {'extra': extra})


def find_conflicts(requirements):
    """The requirements that the installed packages do not meet, and those of these packages, and so on."""
    conflicts, done = [], set()
    todo = [('mmrepvgg', requirement) for requirement in requirements if applies(requirement)]
    while todo:
        owner, requirement = todo.pop()
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            conflicts.append(f'{owner} needs {requirement}, which is not installed')
            continue
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            conflicts.append(f'{owner} needs {requirement}, but {distribution.version} is installed')
        for extra in ('', *requirement.extras):
            if (requirement.name, extra) in done:
                continue
            done.add((requirement.name, extra))
            further = [Requirement(text) for text in distribution.requires or ()]
            todo += [(requirement.name, each) for each in further if applies(each, extra)]
    return conflicts


@pytest.mark.skipif(
    bool(find_version('onedl-mmengine')), reason='the onedl forks stand in for packages that setup.py asks for by name'
)
def test_all_extras_fit_together(extras):
    assert find_conflicts(requirement for requirements in extras.values() for requirement in requirements) == []


def test_what_does_not_fit_is_found(extras):
    name = extras['litert'][0].name
    (conflict,) = find_conflicts([*extras['litert'], Requirement(f'{name}<1')])
    assert conflict.startswith(f'mmrepvgg needs {name}<1, but ')
    (conflict,) = find_conflicts([Requirement('no-such-package')])
    assert conflict == 'mmrepvgg needs no-such-package, which is not installed'


def name_packages(requirements):
    """The packages to import that requirements bring."""
    names = {canonicalize_name(requirement.name) for requirement in requirements}
    found = {
        package
        for package, owners in importlib.metadata.packages_distributions().items()
        if names & {canonicalize_name(owner) for owner in owners}
    }
    # Python 3.10 finds no packages of distributions without a top_level.txt, as safetensors is one
    return found | {name.replace('-', '_') for name in names}


@pytest.mark.parametrize('row', [row for row in FORMATS if row.extra], ids=lambda row: row.name)
def test_an_extra_brings_what_a_format_needs(extras, row):
    assert set(row.packages) <= name_packages(extras[row.extra])
    assert {*row.packages, *row.writing_packages} <= name_packages(extras[row.writing_extra or row.extra])
    for quantizer in row.quantizers:
        assert set(quantizer.packages) <= name_packages(extras[quantizer.extra or row.writing_extra or row.extra])


@pytest.mark.parametrize('row', FORMATS, ids=lambda row: row.name)
def test_dev_has_them_all(extras, row):
    names = {requirement.name for extra in (row.extra, row.writing_extra) for requirement in extras.get(extra, ())}
    assert names <= {requirement.name for requirement in (*extras[''], *extras['dev'])}


def test_every_package_has_its_licence_in_the_docs(extras):
    rows = [line.split('|')[1] for line in (ROOT / 'docs/licences.md').read_text().splitlines() if line.startswith('|')]
    listed = {name.strip() for row in rows[2:] for name in row.split(',') if '(npm)' not in name}
    assert listed == {requirement.name for requirements in extras.values() for requirement in requirements}


def test_the_oldest_set_is_what_setup_py_allows(extras):
    lines = [line for line in (ROOT / 'constraints-oldest.txt').read_text().splitlines() if not line.startswith('#')]
    pinned = dict(line.split('==') for line in lines)
    for requirement in [*extras[''], *extras['mmcv-lite'], *extras['digits'], *extras['test']]:
        version = pinned[requirement.name]
        assert requirement.specifier.contains(version, prereleases=True), requirement
        assert '>=' in str(requirement.specifier), requirement
