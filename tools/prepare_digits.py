"""Write a small data set of handwritten digits: the command ``mmrepvgg prepare-digits`` as a script."""

from mmrepvgg.commands import prepare_digits
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(prepare_digits)
