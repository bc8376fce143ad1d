"""Classification heads."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn


class AuxiliaryClsHead(LinearClsHead):
    """A linear classifier on the last feature map, and an auxiliary classifier on each earlier map (RepVGGplus).

    Auxiliary classifiers are for training only: ``loss = loss(last) + aux_loss_weight * sum(loss(earlier))``. The head
    pools the maps itself: use no neck. State-dict keys: ``fc.*`` and ``aux_heads.{i}.{conv,norm,fc}.*``.

    Args:
        num_classes: Number of classes.
        in_channels: Number of channels of the last feature map.
        aux_channels: Numbers of channels of the earlier maps, in the order of the backbone's outputs.
        aux_loss_weight: Weight of the loss of each auxiliary classifier.
        deploy: Build the head without auxiliary classifiers.
        **kwargs: Further arguments of mmpretrain's ``LinearClsHead``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *args: Any,
        aux_channels: Sequence[int] = (),
        aux_loss_weight: float = 0.1,
        deploy: bool = False,
        **kwargs: Any,
    ):
        super().__init__(num_classes, in_channels, *args, **kwargs)
        self.aux_loss_weight = aux_loss_weight
        self.deploy = deploy
        self.aux_heads = nn.ModuleList(
            _make_aux_head(channels, num_classes) for channels in (() if deploy else aux_channels)
        )

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Pool the last feature map: ``(N, C, H, W)`` -> ``(N, C)``."""
        return feats[-1].mean((2, 3))

    def loss(self, feats: tuple[Tensor, ...], data_samples: list, **kwargs: Any) -> dict[str, Tensor]:
        """The losses by name: ``loss``, and the weighted ``loss_aux_{i}`` of each auxiliary classifier.

        Raises:
            ValueError: If ``feats`` are not one map for each auxiliary classifier and the last one.
        """
        losses = super().loss(feats, data_samples, **kwargs)
        for i, score in enumerate(self.compute_aux_scores(feats)):
            aux_loss = self._get_loss(score, data_samples, **kwargs)['loss']
            losses[f'loss_aux_{i}'] = self.aux_loss_weight * aux_loss
        return losses

    def compute_aux_scores(self, feats: tuple[Tensor, ...]) -> list[Tensor]:
        """The scores ``(N, num_classes)`` of each auxiliary classifier. The deploy form has none."""
        if self.aux_heads and len(feats) != len(self.aux_heads) + 1:
            raise ValueError(
                f'the backbone must return {len(self.aux_heads)} feature maps for the auxiliary classifiers and the '
                f'last one, got {len(feats)}: set its out_indices'
            )
        return [aux_head(feats[i]) for i, aux_head in enumerate(self.aux_heads)]

    def switch_to_deploy(self) -> None:
        """Drop the auxiliary classifiers, in place."""
        self.aux_heads = nn.ModuleList()
        self.deploy = True


def _make_aux_head(channels: int, num_classes: int) -> nn.Sequential:
    """``(N, C, H, W)`` -> ``(N, num_classes)``."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            norm=nn.BatchNorm2d(channels),
            act=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(channels, num_classes),
        )
    )
