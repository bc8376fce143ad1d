"""Whether the stack on which this thread's signal handlers run is still there."""

import ctypes
from pathlib import Path


class _Stack(ctypes.Structure):
    _fields_ = [('start', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]


def has_signal_stack() -> bool:
    """False if it was unmapped: the next signal with a handler would end the process."""
    stack = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    if not stack.start:  # none: the handlers run on the thread's own
        return True
    regions = (line.split()[0].split('-') for line in Path('/proc/self/maps').read_text().splitlines())
    return any(int(start, 16) <= stack.start < int(end, 16) for start, end in regions)
