"""As repvgg-a0.py, with label smoothing of 0.1: the target is 0.9 of the label and 0.1 of all classes alike."""

_base_ = './repvgg-a0.py'

model = dict(head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
