"""The instructions of the CPU, as Linux lists them. Imports no torch."""

import functools
from pathlib import Path


@functools.cache
def read_cpuinfo() -> dict[str, str]:
    """The entries of the first processor in /proc/cpuinfo; empty on systems without that file."""
    path = Path('/proc/cpuinfo')
    if not path.is_file():
        return {}
    first, _, _ = path.read_text().partition('\n\n')
    pairs = (line.partition(':') for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_flags() -> set[str]:
    """Names of the instruction sets; empty if the system does not list them."""
    cpuinfo = read_cpuinfo()
    return set((cpuinfo.get('flags') or cpuinfo.get('Features') or '').split())


def has_vnni() -> bool:
    """Whether an x86 CPU multiplies int8 and adds in 32 bits; False if the system does not say so."""
    return bool(read_flags() & {'avx512_vnni', 'avx_vnni'})
