"""Runtimes that the tests leave out with some versions of torch (make test-matrix)."""

from importlib.util import find_spec

import torch

# It is for one version of torch.
WITHOUT_EXECUTORCH = not torch.__version__.startswith('2.12.') and find_spec('executorch') is None
