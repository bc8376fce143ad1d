"""Random erasing (arXiv:1708.04896) of a rectangle in a quarter of the images, as the last augmentation.

In a config of your own:

    _base_ = ['./repvgg-a0_8xb32.py', '../_base_/extras/random_erasing.py']
    train_dataloader = dict(
        dataset=dict(pipeline=[*_base_.train_pipeline[:-1], _base_.random_erasing, dict(type='PackInputs')])
    )
"""

random_erasing = dict(
    type='RandomErasing',
    erase_prob=0.25,
    mode='rand',
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    # mean and deviation of the noise, in BGR as images are loaded
    fill_color=[103.53, 116.28, 123.675],
    fill_std=[57.375, 57.12, 58.395],
)
