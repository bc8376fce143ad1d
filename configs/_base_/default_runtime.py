"""Logging, checkpoints and environment."""

default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='mmrepvgg.StepLoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # the running statistics of several processes are averaged, so that all test what the checkpoint holds
    sync_buffers=dict(type='SyncBuffersHook'),
    # draws nothing until it is enabled, as mmpretrain's tools/test.py --show-dir does
    visualization=dict(type='mmpretrain.VisualizationHook', enable=False),
)
custom_hooks = [dict(type='mmrepvgg.ChannelsLastHook')]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

# draws predictions, which VisualizationHook and mmpretrain's browse_dataset ask for
visualizer = dict(type='mmpretrain.UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
