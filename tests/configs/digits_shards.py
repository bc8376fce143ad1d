"""As digits_small.py, with the images in shards: mmrepvgg shard digits_small.py data/shards --shard-size 1."""

_base_ = './digits_small.py'

train_dataloader = dict(dataset=dict(type='mmrepvgg.ShardedImages', data_root='data/shards'))
val_dataloader = dict(dataset=dict(type='mmrepvgg.ShardedImages', data_root='data/shards'))
test_dataloader = val_dataloader
