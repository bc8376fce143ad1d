"""Raises an error that says what to install if mmcv is missing. Modules that need mmcv import this one first."""

from importlib.util import find_spec

if find_spec('mmcv') is None:
    raise ImportError(
        'mmrepvgg needs mmcv, which is not installed: pip install "mmcv-lite>=2.1,<2.3" (or install mmcv itself; never '
        "install both: they are two builds of one package and overwrite each other's files)"
    )
