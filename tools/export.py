"""Write a file for a runtime: the command ``mmrepvgg export`` as a script."""

from mmrepvgg.commands import export
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(export)
