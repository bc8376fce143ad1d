"""Pages on which one drops images: a local one for any file, and one that runs an ONNX file in the browser."""

from .. import mmcv_installed as mmcv_installed  # first: it says what is missing, and what need not be said
