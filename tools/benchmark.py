"""Time networks side by side: the command ``mmrepvgg benchmark`` as a script."""

from mmrepvgg.commands import benchmark
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(benchmark)
