"""Predict folders of any size in many processes: the command ``mmrepvgg predict-many`` as a script."""

from mmrepvgg.commands import predict_many
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(predict_many)
