"""Tests that need mmsegmentation and mmdetection of the onedl family (make test-onedl)."""

from importlib.util import find_spec

# Not collected elsewhere, instead of skipped there; make test-onedl fails where one is missing. mmseg runs without the
# compiled operators of mmcv, mmdet does not.
_NEEDED = {
    'test_segmentation.py': ('mmseg',),
    'test_detection.py': ('mmdet', 'mmcv._ext'),
    'test_other_backbones.py': ('mmseg', 'mmdet', 'mmcv._ext'),
}
collect_ignore = [name for name, modules in _NEEDED.items() if not all(map(find_spec, modules))]
