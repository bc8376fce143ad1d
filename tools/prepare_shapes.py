"""Write the data of the segmentation example."""

import sys
from pathlib import Path

from mmrepvgg.commands.running import run

sys.path.insert(0, str(Path(__file__).parent.parent))  # examples/ is part of the repository, not of the package
from examples.segmentation import shapes

if __name__ == '__main__':
    run(shapes)
