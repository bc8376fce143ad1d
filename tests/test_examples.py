"""The examples that need no further environment run as they are."""

import re

from tool_runs import ROOT, run_python


def test_the_block_alone_in_plain_torch():
    result = run_python(ROOT / 'examples/plain_torch.py')
    assert result.returncode == 0, result.stderr
    found = re.search(
        r'top-1: (\S+)% of 297 images\npredictions that differ: (\d+)\nlargest difference: (\S+) of', result.stdout
    )
    assert found is not None, result.stdout
    assert float(found[1]) > 85
    assert found[2] == '0'
    assert float(found[3]) < 1e-4
