"""The models that a report compares: the trained one, its deploy form, and exported files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from torch import Tensor, nn

from ..checkpoints.loading import load_weights
from ..checkpoints.reading import hash_file
from ..data.classes import get_trained_classes
from ..measures.timing import summarise, time_interleaved
from ..models.blocks import RepVGGBlock
from ..models.building import build_model
from ..printable import make_printable
from ..reparam.switch import reparameterize
from ..runtimes.classifier import ExportedClassifier
from ..runtimes.table import find_format, is_exported
from .scoring import Score, describe
from .source import Source, UnfitModelError

TRAINED, DEPLOYED = 'train form', 'deploy form'

# Rounds of the timing, those before them, and the seconds for each model.
_REPEATS, _WARM_UP, _BUDGET = 20, 3, 2.0


@dataclass
class Candidate:
    """A model of the report.

    Attributes:
        name: ``'train form'``, ``'deploy form'``, or the name of a file.
        runtime: What runs it.
        precision: ``'fp32'``, ``'fp16'``, ``'bf16'`` or ``'int8'``.
        size: Size in bytes of the file, or of the weights.
        made_from: Name of the checkpoint from which a file was made; empty if that is not known.
        milliseconds: Median time for one image. None if it could not be timed.
    """

    name: str
    runtime: str
    precision: str
    size: int
    model: Any
    made_from: str = ''
    milliseconds: float | None = None


@dataclass(frozen=True)
class Forms:
    """The trained model and its deploy form.

    Attributes:
        trained: As it was trained, in eval mode.
        deployed: Its deploy form. None if it was trained in this form.
    """

    trained: Any
    deployed: Any


def build_forms(source: Source) -> Forms:
    """Load the trained model, and switch a copy of it. Both compute in floating point, even if training was for int8.

    Raises:
        UnfitModelError: If the model holds no RepVGG block.
        CheckpointError: If the checkpoint does not fit the config.
        FusionError: If a block can't be switched.
    """
    is_deploy_form = source.checkpoint.is_deploy_form
    model: Any = build_model(source.cfg, deploy=is_deploy_form)
    if not any(isinstance(module, RepVGGBlock) for module in model.modules()):
        raise UnfitModelError(f'a report is about a RepVGG, and the model of {source.path} holds none of its blocks')
    load_weights(model, source.checkpoint)
    names = get_trained_classes(source.checkpoint.meta)
    model._dataset_meta = {'classes': names} if names else {}
    return Forms(model, None if is_deploy_form else reparameterize(model))


def list_forms(forms: Forms) -> list[Candidate]:
    """The trained model first."""
    names = (DEPLOYED,) if forms.deployed is None else (TRAINED, DEPLOYED)
    return [
        Candidate(name, 'PyTorch', 'fp32', sum(value.nbytes for value in model.state_dict().values()), model)
        for name, model in zip(names, (forms.trained, forms.deployed), strict=False)
    ]


def find_exported(work_dir: str | Path) -> list[Path]:
    """The exported files in a work dir."""
    return sorted(path for path in Path(work_dir).iterdir() if is_exported(path))


def load_files(
    paths: Iterable[str | Path], work_dir: str | Path, num_classes: int
) -> tuple[list[Candidate], dict[str, str]]:
    """Load exported files, which must have this number of classes.

    Returns:
        tuple[list[Candidate], dict[str, str]]: The files, and why others could not be loaded, by their names.
    """
    files = list(map(Path, paths))
    checkpoints = {hash_file(path): path.name for path in Path(work_dir).glob('*.pth')} if files else {}
    loaded, failures = [], {}
    for path in files:
        name = make_printable(path.name)
        try:
            classifier = ExportedClassifier(path, num_classes, num_threads=torch.get_num_threads())
            row, metadata = find_format(path), classifier.exported.metadata
            made_from = make_printable(checkpoints.get(metadata.source_sha256, ''))
            loaded.append(
                Candidate(
                    name,
                    row.runtime_title or 'PyTorch',
                    metadata.precision,
                    row.measure_size(path),
                    classifier,
                    made_from,
                )
            )
        except Exception as error:  # of any type: a runtime's own
            failures[name] = describe(error)
    return loaded, failures


def make_score(model: Any) -> Score:
    """A function from packed images to the scores of a model, on the model's device and back."""

    def score(images: Tensor) -> Tensor:
        return model(model.data_preprocessor(dict(inputs=images))['inputs']).float().cpu()

    return score


@contextmanager
def on_device(models: Sequence[nn.Module]) -> Iterator[None]:
    """Let models compute on the GPU, if there is one, in full float32 as on the CPU."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for model in models:
            model.to(get_device())
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        for model in models:
            model.cpu()


def time_candidates(candidates: Sequence[Candidate], image: Tensor) -> None:
    """Time models side by side on the CPU, for one packed image ``(C, H, W)``, and note their medians."""
    runs = []
    for candidate in candidates:
        inputs = candidate.model.data_preprocessor(dict(inputs=image[None]))['inputs']
        runs.append(partial(candidate.model, inputs))
    times = time_interleaved(runs, _REPEATS, _WARM_UP, _BUDGET, on_error=lambda index, error: None)
    for candidate, taken in zip(candidates, times, strict=True):
        if any(each is not None for each in taken):
            candidate.milliseconds = 1e3 * summarise(taken).median
