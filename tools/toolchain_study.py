"""Run the study of other toolchains of docs/quantization.md."""

import sys
from pathlib import Path

from mmrepvgg.commands.running import run

sys.path.insert(0, str(Path(__file__).parent.parent))  # studies/ is part of the repository, not of the package
from studies.toolchains import command

if __name__ == '__main__':
    run(command)
