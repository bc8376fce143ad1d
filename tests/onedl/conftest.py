"""Tests that need mmsegmentation, which runs without compiled operators in the onedl family only (make test-onedl)."""

from importlib.util import find_spec

# Not collected elsewhere, instead of skipped there; make test-onedl fails where mmseg is missing.
collect_ignore_glob = [] if find_spec('mmseg') else ['test_*.py']
