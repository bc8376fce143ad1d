"""Test a checkpoint or an exported file: the command ``mmrepvgg test`` as a script."""

from mmrepvgg.commands import test
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(test)
