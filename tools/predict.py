"""Predict the classes of images: the command ``mmrepvgg predict`` as a script."""

from mmrepvgg.commands import predict
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(predict)
