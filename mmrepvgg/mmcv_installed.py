"""Raises an error that says what to install if mmcv is missing. Modules that need mmcv import this one first."""

import warnings
from importlib.util import find_spec

if find_spec('mmcv') is None:
    raise ImportError(
        'mmrepvgg needs mmcv, which is not installed: pip install "mmcv-lite>=2.1,<2.3" (or install mmcv itself; never '
        "install both: they are two builds of one package and overwrite each other's files)"
    )

# mmcv-lite says at each start that it lacks an operator, which no model here has. It is said in every process, by the
# import that comes next, and so in every program that uses this package: hence this filter is not the command line's.
warnings.filterwarnings(
    'ignore', 'Fail to import ``MultiScaleDeformableAttention``', UserWarning, r'mmcv\.cnn\.bricks\.transformer'
)
