"""Score what such hardware gave: the command ``mmrepvgg score-outputs`` as a script."""

from mmrepvgg.commands import score_outputs
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(score_outputs)
