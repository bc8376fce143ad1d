"""Print the table of docs/any-model.md."""

import sys
from pathlib import Path

from mmrepvgg.commands.running import run

sys.path.insert(0, str(Path(__file__).parent.parent))  # studies/ is part of the repository, not of the package
from studies.any_model import report as table

if __name__ == '__main__':
    run(table)
