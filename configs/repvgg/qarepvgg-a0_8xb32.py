"""QARepVGG-A0 on ImageNet-1k: RepVGG-A0 with blocks made for int8, weight decay 4e-5, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train qarepvgg-a0_8xb32 --launcher pytorch
Top-1 to expect: 72.2 (paper, arXiv:2212.01593), and 70.4 in int8 after standard post-training quantization.
"""

_base_ = './repvgg-a0_8xb32.py'

model = dict(backbone=dict(block='QARepVGGBlock'))

# the authors' runs; the rest of the recipe is RepVGG's
optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
