"""Test and predict again and again in one process."""

import sys
from pathlib import Path

from mmrepvgg.commands.running import run

sys.path.insert(0, str(Path(__file__).parent.parent))  # studies/ is part of the repository, not of the package
from studies import soak

if __name__ == '__main__':
    run(soak)
