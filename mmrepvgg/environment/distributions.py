"""The packages that this project needs and may use, as its metadata names them, and the versions that are there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec

PROJECT = 'mmrepvgg'
_EXTRA = re.compile(r'extra == [\'"]([\w-]+)[\'"]')
# extras for work on this project itself
_FOR_DEVELOPERS = ('dev', 'docs', 'test')


@dataclass(frozen=True)
class Need:
    """One requirement of this project.

    Attributes:
        name: Name of the package in an index.
        versions: Versions that fit, for example ``'>=2.11'``; empty if all do.
        extra: Extra that asks for it; empty if it is always needed.
        version: Version that is installed; empty if none is.
        fits: Whether that is one of ``versions``.
    """

    name: str
    versions: str
    extra: str
    version: str
    fits: bool

    def __str__(self) -> str:
        return f'{self.name}{self.versions}'


def find_version(name: str) -> str:
    """The installed version of a package; empty if it is not installed."""
    try:
        return version(name) or ''  # what is left of a package that was removed by half has none
    except PackageNotFoundError:
        return ''


def list_needs() -> list[Need]:
    """List what this project needs, and what its extras bring. Empty if pip has not installed it."""
    try:
        requirements = distribution(PROJECT).requires or []
    except PackageNotFoundError:
        return []
    return list(_iterate_needs(requirements))


def find_python_versions() -> str:
    """The versions of Python for which this project is made; empty if pip has not installed it."""
    try:
        return distribution(PROJECT).metadata['Requires-Python'] or ''
    except PackageNotFoundError:
        return ''


def is_within(number: str, versions: str) -> bool:
    """Whether a version is one of ``versions``. True where that can not be told."""
    if not number or find_spec('packaging') is None:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(versions).contains(number, prereleases=True)


def _iterate_needs(requirements: list[str]) -> Iterator[Need]:
    for requirement in requirements:
        wanted, _, marker = requirement.partition(';')
        found = _EXTRA.search(marker)
        extra = found[1] if found else ''
        match = re.match(r'([\w.-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?', wanted)
        if match is None or extra in _FOR_DEVELOPERS:
            continue
        name, versions = match[1], match[2].strip()
        # the maintained forks of OpenMMLab's packages are imported by the same names
        present = find_version(name) or find_version(f'onedl-{name}')
        yield Need(name, versions, extra, present, is_within(present, versions))
