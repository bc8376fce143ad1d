"""Compare the two forms of a model: the command ``mmrepvgg compare`` as a script."""

from mmrepvgg.commands import compare
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(compare)
