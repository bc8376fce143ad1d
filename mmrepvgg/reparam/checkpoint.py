"""A train-form checkpoint file -> a deploy-form checkpoint file, verified."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from .. import __version__
from ..checkpoints.loading import load_weights
from ..checkpoints.reading import Checkpoint, CheckpointError, hash_file, read_checkpoint
from ..checkpoints.writing import replacing
from ..data.images import iterate_images
from ..data.noise import make_noise
from ..models.blocks import RepVGGBlock
from ..models.building import build_model
from ..models.complexity import count_params
from ..models.fake_quant import find_quantizers
from .switch import reparameterize

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
    """

    entry: str
    difference: float
    num_inputs: int
    train_params: int
    deploy_params: int
    dropped_heads: tuple[str, ...] = ()
    was_trained_for_int8: bool = False


def reparameterize_checkpoint(
    cfg: Config,
    source: str | Path,
    destination: str | Path,
    *,
    ema: bool = False,
    data: str | Path | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Conversion:
    """Convert ``source`` to deploy form, compare the written file with it, and only then put it in place.

    The model is switched in eval mode; the kernels are computed in float64 and written as float32. Training-only
    heads (:class:`AuxiliaryClsHead`) are dropped. Both forms then run in float32 on the same inputs, the deploy form
    from the file as written. Of quantization-aware training the unrounded weights are compared and written.

    Args:
        cfg: The config with which the source was trained, or its deploy twin.
        source: A Runner checkpoint or a state dict, of the whole model or of its backbone alone. The destination
            holds the same part.
        destination: Where to write; replaced only by a verified file.
        ema: Convert the averaged weights.
        data: An image or a folder of images to compare on. Default: seeded noise.
        tolerance: Largest allowed difference, relative to the largest output.

    Raises:
        CheckpointError: If the source can't be read, does not fit, is in deploy form already, or the two forms
            differ by more than ``tolerance``.
    """
    checkpoint = read_checkpoint(source, ema)
    if checkpoint.is_deploy_form:
        raise CheckpointError(
            f'{source} is in deploy form already (it has branch_reparam weights): there is nothing to convert; '
            'test it with the deploy config'
        )
    whole = build_model(cfg, deploy=False)
    trained, prefix = _select_part(whole, checkpoint)
    load_weights(trained, _without_prefix(checkpoint, prefix))
    deployed = reparameterize(trained)
    if not all(value.isfinite().all() for value in deployed.state_dict().values()):
        raise CheckpointError(
            f'the kernels of {source} exceed the range of {torch.get_default_dtype()} when they are fused; nothing was '
            'written. Gains or weights that are far too large cause that'
        )

    content = dict(
        state_dict={prefix + key: value.contiguous() for key, value in deployed.state_dict().items()},
        meta=dict(checkpoint.meta),
    )
    dropped_heads = _find_aux_heads(checkpoint)
    record = content['meta']['mmrepvgg'] = dict(
        form='deploy',
        source=Path(source).name,
        source_sha256=hash_file(source),
        version=__version__,
        dropped_heads=list(dropped_heads),
    )
    with replacing(destination) as temporary:
        torch.save(content, temporary)
        written = build_model(cfg, deploy=True)
        deployed, _ = _select_part(written, checkpoint)
        load_weights(deployed, _without_prefix(read_checkpoint(temporary), prefix))
        inputs = _make_inputs(cfg, whole, data)
        difference, num_inputs = measure_difference(trained, deployed, inputs)
        if not difference <= tolerance:  # not >, which NaN would pass
            raise CheckpointError(
                f'the deploy form of {source} differs from the train form by {difference:.2e} of the largest output, '
                f'more than the tolerance of {tolerance:.0e}; nothing was written. Weights that are not finite or '
                'running variances near zero cause that; --tolerance allows more'
            )
        record.update(max_relative_difference=difference, num_inputs=num_inputs, tolerance=tolerance)
        torch.save(content, temporary)
    return Conversion(
        checkpoint.entry,
        difference,
        num_inputs,
        count_params(trained),
        count_params(deployed),
        dropped_heads,
        bool(find_quantizers(trained)),
    )


@torch.no_grad()
def measure_difference(first: nn.Module, second: nn.Module, inputs: Iterable[Tensor]) -> tuple[float, int]:
    """The largest difference of two models' outputs over all inputs, relative to the largest output of ``first``.

    Returns:
        tuple[float, int]: The difference (NaN if an output is not finite), and the number of inputs.
    """
    largest_difference = largest_output = 0.0
    num_inputs = 0
    for batch in inputs:
        num_inputs += len(batch)
        for a, b in zip(_flatten(first(batch)), _flatten(second(batch)), strict=True):
            if not (a.isfinite().all() and b.isfinite().all()):
                return float('nan'), num_inputs
            largest_difference = max(largest_difference, (a - b).abs().max().item())
            largest_output = max(largest_output, a.abs().max().item())
    return largest_difference / largest_output if largest_output else largest_difference, num_inputs


def _select_part(model: Any, checkpoint: Checkpoint) -> tuple[nn.Module, str]:
    """The part of ``model`` that the checkpoint holds, and what its keys begin with."""
    if not hasattr(model, 'backbone'):
        return model, ''
    if not any(key.startswith('backbone.') for key in checkpoint.state_dict):
        return model.backbone, ''
    if all(key.startswith('backbone.') for key in checkpoint.state_dict):
        return model.backbone, 'backbone.'
    return model, ''


def _find_aux_heads(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the training-only heads in the checkpoint, such as ``head.aux_heads.0``."""
    matches = (re.match(r'(.*\baux_heads\.\d+)\.', key) for key in checkpoint.state_dict)
    return tuple(dict.fromkeys(match[1] for match in matches if match))


def _without_prefix(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    state_dict = {key.removeprefix(prefix): value for key, value in checkpoint.state_dict.items()}
    return Checkpoint(checkpoint.path, state_dict, checkpoint.meta, checkpoint.entry)


def _make_inputs(cfg: Config, model: Any, data: str | Path | None) -> Iterator[Tensor]:
    if data is not None:
        return iterate_images(Path(data), cfg, model.data_preprocessor)
    stem = next(module for module in model.modules() if isinstance(module, RepVGGBlock))
    return iter([make_noise(stem.in_channels)])


def _flatten(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for output in outputs:
            yield from _flatten(output)
