"""The kinds of blocks that a backbone is built of."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .blocks import RepVGGBlock
from .inserted_norm import InsertedNormBlock
from .qarepvgg import QARepVGGBlock
from .quantization_aware import QuantizationAwareBlock, QuantizationAwareQABlock

# For each value of a backbone's argument ``block``: the ordinary class, and the one for quantization-aware training.
BLOCKS: dict[str, tuple[type[RepVGGBlock], type[QuantizationAwareBlock]]] = {
    'RepVGGBlock': (RepVGGBlock, QuantizationAwareBlock),
    'QARepVGGBlock': (QARepVGGBlock, QuantizationAwareQABlock),
}


def choose_block(
    name: str,
    deploy: bool,
    norm_cfg: dict,
    deploy_norm: dict | None,
    quantization: Mapping[str, Any] | None,
) -> Callable[..., RepVGGBlock]:
    """Choose the class of a backbone's blocks, and set the arguments in which the classes differ.

    Raises:
        ValueError: If there is no block of this name, or the arguments exclude each other.
    """
    if not isinstance(name, str) or name not in BLOCKS:
        raise ValueError(f'block must be one of {", ".join(BLOCKS)}, got {name!r}')
    if deploy_norm is not None and not deploy:
        raise ValueError(f'deploy_norm is inserted into the deploy form and needs deploy=True, got deploy={deploy!r}')
    if quantization is not None and deploy:
        raise ValueError(
            f'quantization is trained in train form and needs deploy=False, got deploy={deploy!r}; export a converted '
            'model with `export_model`, and quantize the file with `quantize_model`'
        )
    ordinary, quantization_aware = BLOCKS[name]
    if deploy_norm is not None:
        return partial(InsertedNormBlock, norm_cfg=deploy_norm)
    if quantization is not None:
        return partial(quantization_aware, norm_cfg=norm_cfg, quantization=quantization)
    return partial(ordinary, norm_cfg=norm_cfg, deploy=deploy)
