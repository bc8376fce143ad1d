"""RepVGG-D2se with weights, gradients and momenta shared out over the GPUs (FSDP, docs/distributed.md).

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-d2se_8xb32_fsdp --launcher pytorch
Top-1 to expect: that of repvgg-d2se_8xb32.py, which is the same training. This one takes less memory and more network.
"""

_base_ = './repvgg-d2se_8xb32.py'

strategy = dict(type='mmrepvgg.FSDPStrategy')
