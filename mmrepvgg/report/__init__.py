"""One page about a training: what was learnt, what goes wrong, and what the switch did."""

from .. import mmcv_installed as mmcv_installed  # first: it says what is missing, and what need not be said
