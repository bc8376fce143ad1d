"""Count parameters, multiply-adds and activations: the command ``mmrepvgg flops`` as a script."""

from mmrepvgg.commands import flops
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(flops)
