"""What the CPU can do, as Linux tells. Imports no torch."""

import functools
from pathlib import Path


@functools.cache
def read_cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    path = Path('/proc/cpuinfo')
    if not path.is_file():
        return {}
    first, _, _ = path.read_text().partition('\n\n')
    pairs = (line.partition(':') for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_flags() -> set[str]:
    """Names of the instruction sets; none where they are not told."""
    cpuinfo = read_cpuinfo()
    return set((cpuinfo.get('flags') or cpuinfo.get('Features') or '').split())


def has_vnni() -> bool:
    """Whether an x86 CPU multiplies and adds int8 in 32 bits; False also where that is not told."""
    return bool(read_flags() & {'avx512_vnni', 'avx_vnni'})
