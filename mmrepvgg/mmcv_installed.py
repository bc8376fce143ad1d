"""Importing this says what to install where mmcv is missing. What needs mmcv imports it first."""

from importlib.util import find_spec

if find_spec('mmcv') is None:
    raise ImportError(
        'mmrepvgg needs mmcv, and none is installed: pip install "mmcv-lite>=2.1,<2.3" (or mmcv itself; '
        "never both, they are two builds of one package and overwrite each other's files)"
    )
