"""OpenVINO models come and go, and the process lives."""

import os

from tool_runs import ROOT, run_python

SCRIPT = """
import signal, subprocess, sys
from mmrepvgg.runtimes.loading import load_exported
from signal_stack import has_signal_stack

first, second = load_exported(sys.argv[1]), load_exported(sys.argv[1])
del first
del second
print(has_signal_stack(), flush=True)
signal.signal(signal.SIGCHLD, lambda number, frame: print('a child has ended', flush=True))
subprocess.run(['true'])
"""


def test_models_that_go_in_the_order_in_which_they_came(small_cfg, export_once):
    _, path = export_once(small_cfg, '.xml')
    done = run_python('-c', SCRIPT, path, PYTHONPATH=f'{ROOT}{os.pathsep}{ROOT / "tests"}')
    assert (done.returncode, done.stdout) == (0, 'True\na child has ended\n'), done.stderr
