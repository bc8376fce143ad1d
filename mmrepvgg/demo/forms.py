"""The forms of a model that a page shows side by side: both of a checkpoint in train form, and exported files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from ..data.classes import require_single_label
from ..data.images import ImageReader
from ..data.wrappers import get_test_pipeline
from ..models.blocks import RepVGGBlock
from ..models.fake_quant import set_fake_quantization
from ..reparam.switch import reparameterize
from ..runtimes.classifier import load_classifier
from ..runtimes.loading import load_exported
from ..runtimes.table import find_format, is_exported
from .configs import make_exported_config, read_carried_config


@dataclass(frozen=True)
class Form:
    """A form of a model, ready to run.

    Attributes:
        name: What it is, in words.
        file: The file that it comes from.
        model: Classifier in eval mode.
        read: Reads image files for it.
        gives_logits: Whether it gives logits, and not probabilities.
        device: Where it runs.
        num_threads: Number of CPU threads that it may use.
    """

    name: str
    file: Path
    model: Any
    read: ImageReader
    gives_logits: bool
    device: str
    num_threads: int


def load_forms(files: Sequence[str | Path], config: Config | None = None) -> list[Form]:
    """Load files: an exported file is a form, and a checkpoint in train form is two.

    All run on as many threads as PyTorch has. Models that were trained for int8 compute in floating point here.

    Args:
        files: Checkpoints, and files of ``export_model`` and ``quantize_model``.
        config: Config for all of them. Default: what each file carries.

    Raises:
        NoConfigError: If a file carries no config, and none is given.
        ValueError: If the files have different numbers of classes, or a model gives an image several labels.
        CheckpointError: If a file can't be read safely, or does not fit the config.
        MissingPackageError: If the runtime of a file is not installed.
    """
    readers: dict[str, ImageReader] = {}
    forms: list[Form] = []
    num_threads = torch.get_num_threads()
    for path in map(Path, files):
        cfg = config or _find_config(path)
        require_single_label(cfg)
        pipeline = json.dumps(get_test_pipeline(cfg), default=str)
        read = readers.setdefault(pipeline, ImageReader(cfg))
        model: Any = load_classifier(cfg, path, num_threads=num_threads)
        if is_exported(path):
            metadata = model.exported.metadata
            name = f'{find_format(path).name}, {metadata.precision}'
            forms.append(Form(name, path, model, read, not metadata.softmax, 'cpu', num_threads))
            continue
        set_fake_quantization(model, enabled=False)
        model.to(get_device())
        models = {'deploy form': model}
        if any(isinstance(module, RepVGGBlock) and not module.deploy for module in model.modules()):
            models = {'train form': model, 'deploy form': reparameterize(model)}
        forms += [Form(name, path, each, read, True, str(get_device()), num_threads) for name, each in models.items()]
    _require_same_classes(forms)
    return forms


def _find_config(path: Path) -> Config:
    return make_exported_config(load_exported(path).metadata, path) if is_exported(path) else read_carried_config(path)


def _require_same_classes(forms: Sequence[Form]) -> None:
    counts = {form.file: count_classes(form) for form in forms}
    if len(set(counts.values())) > 1:
        listed = ', '.join(f'{file} has {count}' for file, count in counts.items())
        raise ValueError(f'all files must have the same classes, got other numbers of them: {listed}')


def count_classes(form: Form) -> int:
    """Number of classes of a form."""
    exported = getattr(form.model, 'exported', None)
    return exported.metadata.num_classes if exported is not None else form.model.head.num_classes
