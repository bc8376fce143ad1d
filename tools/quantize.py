"""Write an int8 file for a runtime: the command ``mmrepvgg quantize`` as a script."""

from mmrepvgg.commands import quantize
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(quantize)
