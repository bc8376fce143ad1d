"""Raises an error that says what to install if mmcv is missing. Modules that need mmcv import this one first."""

import functools
import logging
import warnings
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Any

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

# mmpretrain imports transformers where that is installed, this imports torchao, and torch warns of two enums in there.
logging.getLogger('torch.utils._pytree').addFilter(lambda record: 'is an Enum subclass' not in str(record.msg))


def _keep_stdout_for_results() -> None:
    """Let the onedl forks print nothing: each says that it lacks a package of theirs when its data sets are imported.

    It is a message for debugging, but without a logger mmengine prints every message.
    """
    from mmengine import logging as mmengine_logging

    print_log = mmengine_logging.print_log

    @functools.wraps(print_log)
    def print_all_but_that(msg: Any, *args: Any, **options: Any) -> None:
        if not str(msg).startswith('Could not import OneDL'):
            print_log(msg, *args, **options)

    mmengine_logging.print_log = print_all_but_that


with suppress(PackageNotFoundError):
    distribution('onedl-mmengine')
    _keep_stdout_for_results()
