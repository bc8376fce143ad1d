"""Write test images for hardware without Python: the command ``mmrepvgg export-inputs`` as a script."""

from mmrepvgg.commands import export_inputs
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(export_inputs)
