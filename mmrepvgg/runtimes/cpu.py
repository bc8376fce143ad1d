"""The CPU and its instructions, as Linux lists them. Imports no torch."""

import functools
import platform
from pathlib import Path

# Instructions that decide the speed of matrix products, by their names in /proc/cpuinfo, the fastest first.
_INSTRUCTIONS = {
    'amx_int8': 'AMX int8',
    'amx_bf16': 'AMX bf16',
    'amx_fp16': 'AMX fp16',
    'avx512_fp16': 'AVX-512 fp16',
    'avx512_bf16': 'AVX-512 bf16',
    'avx512_vnni': 'AVX-512 VNNI',
    'avx512f': 'AVX-512',
    'avx_vnni': 'AVX VNNI',
    'avx2': 'AVX2',
    # ARM
    'i8mm': 'NEON int8 products',
    'bf16': 'NEON bf16',
    'asimddp': 'NEON int8 dot products',
    'asimdhp': 'NEON fp16',
    'asimd': 'NEON',
}


@functools.cache
def read_cpuinfo() -> dict[str, str]:
    """The entries of the first processor in /proc/cpuinfo; empty on systems without that file."""
    path = Path('/proc/cpuinfo')
    if not path.is_file():
        return {}
    first, _, _ = path.read_text().partition('\n\n')
    pairs = (line.partition(':') for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def name_cpu() -> str:
    """The model of the CPU, or the kind if the system does not say more."""
    return read_cpuinfo().get('model name') or platform.processor() or platform.machine()


def read_flags() -> set[str]:
    """Names of the instruction sets; empty if the system does not list them."""
    cpuinfo = read_cpuinfo()
    return set((cpuinfo.get('flags') or cpuinfo.get('Features') or '').split())


def has_vnni() -> bool:
    """Whether an x86 CPU multiplies int8 and adds in 32 bits; False if the system does not say so."""
    return bool(read_flags() & {'avx512_vnni', 'avx_vnni'})


def list_instructions() -> list[str]:
    """Titles of the matrix instructions that the CPU has, the fastest first; empty if the system does not list them."""
    flags = read_flags()
    return [title for flag, title in _INSTRUCTIONS.items() if flag in flags]
