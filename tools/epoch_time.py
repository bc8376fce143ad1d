"""Show where the time of a training goes."""

import sys
from pathlib import Path

from mmrepvgg.commands.running import run

sys.path.insert(0, str(Path(__file__).parent.parent))  # studies/ is part of the repository, not of the package
from studies import epoch_time

if __name__ == '__main__':
    run(epoch_time)
