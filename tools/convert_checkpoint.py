"""Convert weights from and to other systems: the command ``mmrepvgg convert`` as a script."""

from mmrepvgg.commands import convert
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(convert)
