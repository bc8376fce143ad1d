"""The text of a config for a user's own images, which a person can read and change."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..printable import make_printable
from .choices import Choices
from .labelled import LabelledImages
from .places import Places
from .start_weights import StartWeights

_ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)

_TEXT = '''"""{{ title }}

Written by mmrepvgg new. It is yours: read it, change it. Then:

{% for command in commands %}
    {{ command }}
{% endfor %}
"""

# Parts of the recipe for ImageNet, which come with mmrepvgg. What differs stands below.
_base_ = __import__('mmrepvgg').base_configs('models/repvgg-a0', 'schedules/imagenet_bs256_120e', 'default_runtime')

data_root = {{ root }}

# {{ choices.size_reason }}
size = {{ choices.size }}

{% if is_transparent %}
# Some images are transparent: they are put on white.
reading = dict(type='mmrepvgg.LoadImageFromFile', background=[255, 255, 255])
{% else %}
reading = dict(type='LoadImageFromFile')
{% endif %}
train_pipeline = [
    reading,
    # 35% to 100% of the area of an image. ImageNet's recipe takes 8% and more, which needs many more images.
    dict(type='mmrepvgg.RandomResizedCrop', scale=size, crop_ratio_range=(0.35, 1.0), backend='pillow'),
    # Take this out if left and right make a difference, as in letters, arrows and traffic signs.
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    reading,
    dict(type='mmrepvgg.ResizeEdge', scale={{ choices.short_edge }}, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]

model = dict(
    backbone=dict(arch={{ arch }}{{ backbone }}),
    head=dict(
        num_classes={{ num_classes }},
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
data_preprocessor = dict(
    num_classes={{ num_classes }},
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

{% if uses_lists %}
# Each line of a list has an image and the number of its class.
{% if lists_reason %}
# {{ lists_reason }}
{% endif %}
lists = '{{ lists }}'
images = dict(type='CustomDataset', data_root=data_root, classes=f'{lists}/classes.txt')
{% else %}
images = dict(type='CustomDataset', data_root=data_root)
{% endif %}
train_dataloader = dict(
    batch_size={{ choices.batch_size }},
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict({{ sources.train }}, pipeline=train_pipeline, **images),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict({{ sources.val }}, pipeline=test_pipeline, **images),
)
{% if 'test' in sources %}
test_dataloader = dict(val_dataloader, dataset=dict({{ sources.test }}, pipeline=test_pipeline, **images))
{% else %}
test_dataloader = val_dataloader
{% endif %}
val_evaluator = dict(type='Accuracy', topk={{ topk }})
test_evaluator = val_evaluator

# {{ choices.epochs_reason }}
# This is the one number to change for a shorter or longer training; the learning rate follows it down to 0.
train_cfg = dict(max_epochs={{ choices.epochs }}, val_interval={{ choices.interval }})
# {{ choices.lr_reason }} On several GPUs, --auto-scale-lr scales it by the images of all of them.
optim_wrapper = dict(optimizer=dict(lr={{ lr }}))
auto_scale_lr = dict(base_batch_size={{ choices.batch_size }})

default_hooks = dict(
    logger=dict(interval={{ log_interval }}),
    checkpoint=dict(interval={{ choices.interval }}, max_keep_ckpts=1),
)
randomness = dict(seed=0)
{% if load_from %}

# {{ load_reason }}
load_from = {{ load_from }}
{% endif %}
'''


def write_config_text(
    places: Places,
    found: LabelledImages,
    num_images: Mapping[str, int],
    choices: Choices,
    arch: str,
    start: StartWeights | None,
    *,
    is_transparent: bool,
    lists_reason: str | None,
    commands: Sequence[str],
) -> str:
    """Write the text of a config.

    Args:
        places: The files beside it.
        found: The images.
        num_images: How many of them each split has.
        choices: The settings of the training.
        arch: Name of the arch, if there are no weights.
        start: The weights to start with.
        is_transparent: Whether some images are transparent.
        lists_reason: Why there are lists of the images, or None if the folders are read.
        commands: The commands to call next.
    """
    here = '{{ fileDirname }}'  # mmengine puts the folder of the config there
    uses_lists = lists_reason is not None
    network: Any = start.arch if start else arch
    title = (
        f'RepVGG{"" if isinstance(network, dict) else f"-{network}"} on {places.config.stem}: '
        f'{num_images["train"]} training and {num_images["val"]} validation images of {len(found.classes)} classes.'
    )
    prefixes = found.folders or {}
    sources = {
        split: f"ann_file=f'{{lists}}/{split}.txt'" if uses_lists else f'data_prefix={prefixes[split]!r}'
        for split in num_images
    }
    return _ENVIRONMENT.from_string(_TEXT).render(
        title=make_printable(title).replace('\\', '/').replace('"', "'"),
        commands=commands,
        root=repr(found.root),
        choices=choices,
        lr=float(f'{choices.lr:.3g}'),
        arch=_format_arch(network),
        backbone=''.join(f', {name}={value!r}' for name, value in (start.backbone if start else {}).items()),
        num_classes=len(found.classes),
        topk=(1, 5) if len(found.classes) >= 5 else (1,),
        is_transparent=is_transparent,
        uses_lists=uses_lists,
        lists_reason=lists_reason,
        lists=f'{here}/{places.lists.name}',
        sources=sources,
        log_interval=min(max(choices.steps // 4, 1), 100),
        load_from=start and _format_start(places, start, here),
        load_reason=start and _explain_start(start, len(found.classes)),
    )


def _format_arch(arch: str | dict[str, Any]) -> str:
    if isinstance(arch, str):
        return repr(arch)
    return f'dict(_delete_=True, {", ".join(f"{name}={value!r}" for name, value in arch.items())})'


def _format_start(places: Places, start: StartWeights, here: str) -> str:
    return f"'{here}/{places.weights.name}'" if start.must_be_converted else repr(str(start.path.absolute()))


def _explain_start(start: StartWeights, num_classes: int) -> str:
    if start.num_classes is None:
        return 'Fine-tuning: these weights have no head, so that starts anew.'
    if start.num_classes != num_classes:
        return f'Fine-tuning: all but the head is loaded, which has {start.num_classes} classes there.'
    return f'Fine-tuning: all weights are loaded, the head of {num_classes} classes, too.'
