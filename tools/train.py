"""Train a model: the command ``mmrepvgg train`` as a script."""

from mmrepvgg.commands import train
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(train)
