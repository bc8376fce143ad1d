"""Put the images of a config into tar shards: the command ``mmrepvgg shard`` as a script."""

from mmrepvgg.commands import shard
from mmrepvgg.commands.running import run

if __name__ == '__main__':
    run(shard)
