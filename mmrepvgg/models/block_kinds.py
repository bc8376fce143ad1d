"""The kinds of blocks that a backbone is built of."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .blocks import RepVGGBlock
from .inserted_norm import InsertedNormBlock
from .merged_branches import MergedBranchesBlock
from .qarepvgg import QARepVGGBlock
from .quantization_aware import QuantizationAwareBlock, QuantizationAwareQABlock

# For each value of a backbone's argument ``block``: the ordinary class, and the one for quantization-aware training.
BLOCKS: dict[str, tuple[type[RepVGGBlock], type[QuantizationAwareBlock]]] = {
    'RepVGGBlock': (RepVGGBlock, QuantizationAwareBlock),
    'QARepVGGBlock': (QARepVGGBlock, QuantizationAwareQABlock),
}

# The values of a backbone's argument ``branches``: how the branches are computed while training.
BRANCHES = ('separate', 'merged')


def choose_block(
    name: str,
    deploy: bool,
    norm_cfg: dict,
    deploy_norm: dict | None,
    quantization: Mapping[str, Any] | None,
    branches: str,
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
    if branches not in BRANCHES:
        raise ValueError(f'branches must be one of {", ".join(BRANCHES)}, got {branches!r}')
    ordinary, quantization_aware = BLOCKS[name]
    if deploy_norm is not None:
        return partial(InsertedNormBlock, norm_cfg=deploy_norm)
    if branches == 'merged' and not deploy:  # a deploy form has no branches
        if ordinary is not RepVGGBlock or quantization is not None:
            raise ValueError(
                "branches='merged' is for block='RepVGGBlock' without quantization, got "
                f'block={name!r}, quantization={quantization!r}; leave out branches: nothing could be saved there'
            )
        return partial(MergedBranchesBlock, norm_cfg=norm_cfg)
    if quantization is not None:
        return partial(quantization_aware, norm_cfg=norm_cfg, quantization=quantization)
    return partial(ordinary, norm_cfg=norm_cfg, deploy=deploy)
