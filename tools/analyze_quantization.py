"""Predict what int8 will cost a model: the command ``mmrepvgg analyze`` as a script."""

from mmrepvgg.commands import analyze
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(analyze)
