"""A train-form checkpoint file -> a deploy-form checkpoint file, verified."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from .. import __version__
from ..checkpoints.formats import read_weights
from ..checkpoints.loading import check_weights, load_weights
from ..checkpoints.reading import Checkpoint, CheckpointError, hash_file, read_checkpoint
from ..checkpoints.writing import replacing, require_writable
from ..data.images import find_input_size, iterate_images
from ..data.noise import make_noise
from ..equalization.equalize import equalize as equalize_model
from ..equalization.equalize import require_float_training
from ..measures.difference import Difference, join_outputs
from ..measures.finite import is_finite
from ..models.building import NoRandomWeights
from ..models.channels import get_in_channels
from ..models.complexity import count_params
from ..models.fake_quant import find_quantizers
from .forms import build_form, build_form_of, holds_own_blocks, switch, warn_of_branches
from .report import SwitchReport
from .unusual import describe_unusual

DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        entry: Where in the source file the weights were.
        difference: Largest difference of the two forms' outputs, relative to the largest output.
        num_inputs: On how many images or noise tensors that was measured.
        train_params: Parameters of the train form.
        deploy_params: Parameters of the deploy form.
        dropped_heads: Training-only heads of the source, which the destination has not.
        was_trained_for_int8: The source is of quantization-aware training: in float32 it may be far less accurate.
        report: What was fused and what is left.
        num_equalized: Number of channels that were rescaled.
        left_alone: Reason why the outputs of a layer kept their scale, by the name of the layer.
    """

    entry: str
    difference: float
    num_inputs: int
    train_params: int
    deploy_params: int
    dropped_heads: tuple[str, ...]
    was_trained_for_int8: bool
    report: SwitchReport
    num_equalized: int = 0
    left_alone: Mapping[str, str] = field(default_factory=dict)


def reparameterize_checkpoint(
    cfg: Config,
    source: str | Path,
    destination: str | Path,
    *,
    ema: bool = False,
    data: str | Path | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    equalize: bool = False,
) -> Conversion:
    """Convert ``source`` to deploy form, compare the two forms, and put a file in place that is read back to check it.

    The model is switched in eval mode; the kernels are computed in float64 and written as float32. A model without
    blocks of this project is switched by its structure (:func:`mmrepvgg.reparameterize`). Training-only
    heads (:class:`AuxiliaryClsHead`) are dropped. Both forms run in float32 on the same inputs. Of quantization-aware
    training the unrounded weights are compared and written.

    Channels whose weights are unusual are named in warnings.

    Args:
        cfg: The config with which the source was trained, or its deploy twin.
        source: A Runner checkpoint or a state dict, of the whole model or of its backbone alone. The destination
            holds the same part.
        destination: Where to write; replaced only by a verified file.
        ema: Convert the averaged weights.
        data: An image or a folder of images to compare on. Default: seeded noise.
        tolerance: Largest allowed difference, relative to the largest output.
        equalize: Rescale the channels of the deploy form, exactly, so that int8 with one scale a tensor loses least
            (:func:`mmrepvgg.equalize`): by the images of ``data``, or else by the weights alone. The source may be in
            deploy form then.

    Raises:
        IsADirectoryError, PermissionError: If the destination can't be written.
        CheckpointError: If the source can't be read, does not fit, is in deploy form already, or the two forms
            differ by more than ``tolerance``.
        ValueError: If the model can't be equalized.
    """
    require_writable(destination)
    checkpoint = read_weights(source, ema)
    with NoRandomWeights():
        built = build_form_of(cfg, checkpoint)
    model, is_own = built.model, holds_own_blocks(built.model)
    if built.is_deploy_form and not equalize:
        reason, remedy = 'its weights are those of the switched model', ''
        if is_own:
            reason, remedy = 'it has branch_reparam weights', 'test it with the deploy config, or '
        raise CheckpointError(
            f'{source} is in deploy form already ({reason}): there is nothing to convert; {remedy}rescale it for int8 '
            'with `equalize=True`'
        )
    is_whole, prefix = _find_part(model, checkpoint)
    trained = model if is_whole else model.backbone
    load_weights(trained, _without_prefix(checkpoint, prefix), assign=True)
    dropped_heads = _find_aux_heads(checkpoint)
    checkpoint = replace(checkpoint, state_dict={})
    switched, equalization = switch(trained), None
    deployed = switched.model
    if equalize:
        require_float_training(trained)
        images = None if data is None else _make_inputs(cfg, model, data)
        equalization = equalize_model(deployed, images, inplace=True)
    weights = {prefix + key: value.contiguous() for key, value in deployed.state_dict().items()}
    if not all(is_finite(value) for value in weights.values()):
        raise CheckpointError(
            f'the kernels of {source} exceed the range of {torch.get_default_dtype()} when they are fused; nothing was '
            'written. Gains or weights that are far too large cause that'
        )
    difference = measure_difference(trained, deployed, _make_inputs(cfg, model, data))
    if difference.exceeds(tolerance):
        raise CheckpointError(
            f'the deploy form of {source} differs from the train form by {difference.relative:.2e} of the largest '
            f'output, more than the tolerance of {tolerance:.0e}; nothing was written. Weights that are not finite or '
            'running variances near zero cause that; allow more with `tolerance`'
        )
    conversion = Conversion(
        checkpoint.entry,
        difference.relative,
        difference.num_inputs,
        count_params(trained),
        count_params(deployed),
        dropped_heads,
        bool(find_quantizers(trained)),
        switched.report.with_differences(difference.relative, {}),
        equalization.num_channels if equalization else 0,
        equalization.left_alone if equalization else {},
    )
    record = dict(
        form='deploy',
        source=Path(source).name,
        source_sha256=hash_file(source),
        version=__version__,
        dropped_heads=list(dropped_heads),
        max_relative_difference=difference.relative,
        num_inputs=difference.num_inputs,
        tolerance=tolerance,
        equalized=equalize,
    )
    notes = list(describe_unusual(deployed))
    report = switched.report
    del model, trained, deployed, equalization, switched
    with replacing(destination) as temporary:
        torch.save(dict(state_dict=weights, meta=checkpoint.meta | dict(mmrepvgg=record)), temporary)
        written = _read_back(temporary, weights)
        # the code of other models may need numbers to be built
        with torch.device('meta') if is_own else NoRandomWeights():
            twin: Any = build_form(cfg, deploy=True)
        check_weights(twin if is_whole else twin.backbone, _without_prefix(written, prefix))
    warn_of_branches(report)
    for note in notes:
        warnings.warn(note, stacklevel=1)
    return conversion


def _read_back(path: Path, weights: dict[str, Tensor]) -> Checkpoint:
    """Read a file that must hold ``weights`` bit for bit, which then leave the memory."""
    written = read_checkpoint(path)
    same = weights.keys() == written.state_dict.keys()
    if not same or not all(torch.equal(value, written.state_dict[key]) for key, value in weights.items()):
        raise CheckpointError(
            'the deploy form could not be read back as it was written; nothing was put in place. The disk may be faulty'
        )
    weights.clear()
    return written


@torch.no_grad()
def measure_difference(expected: nn.Module, actual: nn.Module, inputs: Iterable[Tensor]) -> Difference:
    """Compare the outputs of two models, of whatever nested tensors they are."""
    difference = Difference()
    for batch in inputs:
        difference.add(join_outputs(expected(batch)), join_outputs(actual(batch)))
    return difference


def _find_part(model: Any, checkpoint: Checkpoint) -> tuple[bool, str]:
    """Whether the checkpoint holds all of ``model`` or its backbone alone, and what its keys begin with then."""
    in_backbone = [key.startswith('backbone.') for key in checkpoint.state_dict]
    if not hasattr(model, 'backbone') or (any(in_backbone) and not all(in_backbone)):
        return True, ''
    return False, 'backbone.' if any(in_backbone) else ''


def _find_aux_heads(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the training-only heads in the checkpoint, such as ``head.aux_heads.0``."""
    matches = (re.match(r'(.*\baux_heads\.\d+)\.', key) for key in checkpoint.state_dict)
    return tuple(dict.fromkeys(match[1] for match in matches if match))


def _without_prefix(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    return replace(
        checkpoint, state_dict={key.removeprefix(prefix): value for key, value in checkpoint.state_dict.items()}
    )


def _make_inputs(cfg: Config, model: Any, data: str | Path | None) -> Iterator[Tensor]:
    if data is not None:
        return iterate_images(Path(data), cfg, model.data_preprocessor)
    channels = get_in_channels(model)
    if holds_own_blocks(model) or 'test_dataloader' not in cfg:
        return iter([make_noise(channels)])
    return iter([make_noise(channels, find_input_size(cfg))])  # other models may take images of one size only
