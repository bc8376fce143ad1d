"""Time the training data, and say what bounds a training: the command ``mmrepvgg benchmark-data`` as a script."""

from mmrepvgg.commands import benchmark_data
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(benchmark_data)
