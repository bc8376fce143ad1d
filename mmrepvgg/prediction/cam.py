"""Class activation maps: where in an image the evidence for a class is."""

from typing import Any

import matplotlib
import numpy as np
import torch
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.models.necks import GlobalAveragePooling
from PIL import Image
from torch import Tensor

from ..models.backbone import RepVGG
from ..models.heads import AuxiliaryClsHead

# dark to bright at an even pace, also for colour-blind eyes and in grey
_COLOURS = 'inferno'
# how much of the picture shows where the map is zero, and where it is largest
_SHOWN = (0.75, 0.25)


@torch.no_grad()
def class_activation_maps(classifier: Any, inputs: Tensor, classes: Tensor) -> Tensor:
    """Weigh the last feature maps by the weights of a class (Zhou et al. 2016, arXiv:1512.04150).

    For average pooling and one linear layer this is exact: the mean of the map plus the bias of the class is its logit.

    Args:
        classifier: Classifier in eval mode, in train or deploy form.
        inputs: Images ``(N, C, H, W)`` from its data preprocessor.
        classes: Class ``(N,)`` of which each image gets the map.

    Returns:
        Tensor: Maps ``(N, h, w)``. Positive values speak for the class, negative ones against it.

    Raises:
        ValueError: If the classifier is not average pooling and one linear layer behind a backbone.
    """
    _require_linear(classifier)
    features = classifier.extract_feat(inputs, stage='backbone')[-1]
    weights = classifier.head.fc.weight[classes.to(features.device)]
    return torch.einsum('nc,nchw->nhw', weights, features)


def locate_evidence(classifier: Any, inputs: Tensor, classes: Tensor, min_size: int = 4) -> tuple[Tensor, str | None]:
    """Maps of the last stage whose feature maps have several pixels: the last ones of small images have one or two.

    Behind an earlier stage the network is no linear layer. There a map is the gradient of the logit times the feature
    map, summed over the channels (HiResCAM, Draelos and Carin 2020, arXiv:2011.08891). In the last stage this is the
    class activation map, divided by its number of pixels. The maps are the same in both forms.

    Args:
        classifier: Classifier on a RepVGG in eval mode, in train or deploy form.
        inputs: Images ``(N, C, H, W)`` from its data preprocessor.
        classes: Class ``(N,)`` of which each image gets the map.
        min_size: Number of rows and columns that a map should have.

    Returns:
        tuple[Tensor, str | None]: Maps ``(N, h, w)``, and the name of the earlier stage of which they are. None for
        class activation maps of the last stage, which are exact.

    Raises:
        ValueError: As :func:`class_activation_maps`.
    """
    maps = class_activation_maps(classifier, inputs, classes)
    if min(maps.shape[1:]) >= min_size or not isinstance(classifier.backbone, RepVGG):
        return maps, None
    backbone, features = classifier.backbone, dict[str, Tensor]()
    handles = [
        # not the stage itself, which is not called where outputs of single blocks are asked for
        getattr(backbone, name)[-1].register_forward_hook(
            lambda module, args, output, name=name: features.update({name: output})
        )
        for name in backbone.stages
    ]
    try:
        with torch.enable_grad():
            logits = classifier(inputs.detach().requires_grad_())
            large = [name for name in backbone.stages if min(features[name].shape[2:]) >= min_size]
            stage = large[-1] if large else backbone.stages[0]
            scores = logits[torch.arange(len(inputs)), classes.to(logits.device)].sum()
            (gradient,) = torch.autograd.grad(scores, features[stage])
    finally:
        for handle in handles:
            handle.remove()
    return (gradient * features[stage].detach()).sum(1), stage


def _require_linear(classifier: Any) -> None:
    head, neck = (getattr(classifier, part, None) for part in ('head', 'neck'))
    # a subclass may compute something else
    pools = isinstance(neck, GlobalAveragePooling) if type(head) is LinearClsHead else neck is None
    if type(head) not in (LinearClsHead, AuxiliaryClsHead) or not pools:
        raise ValueError(
            'class activation maps need a checkpoint of a classifier with GlobalAveragePooling and LinearClsHead, or '
            f'with AuxiliaryClsHead, got {type(classifier).__name__} with {type(neck).__name__} and '
            f'{type(head).__name__}'
        )


def to_picture(image: Tensor) -> Image.Image:
    """The picture of an image ``(3, H, W)`` in BGR or ``(1, H, W)`` in grey, uint8, as a pipeline packs it."""
    return Image.fromarray(image.flip(0).permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy())


def overlay(image: Image.Image, activation: Tensor) -> Image.Image:
    """Lay a map over the image of which it is.

    The colours go from zero (dark) to the largest value of the map (bright). Negative values count as zero.

    Args:
        image: What the network sees, of any size.
        activation: Map ``(h, w)`` of :func:`class_activation_maps`.

    Returns:
        Image.Image: RGB picture of the size of ``image``.
    """
    positive = activation.detach().float().cpu().clamp(min=0).numpy()
    scaled = positive / max(positive.max(), np.finfo(positive.dtype).tiny)
    smooth = Image.fromarray(scaled).resize(image.size, Image.Resampling.BICUBIC)
    values = np.asarray(smooth).clip(0, 1)
    shown = np.interp(values, (0, 1), _SHOWN)[..., None]
    grey = np.asarray(image.convert('L'))[..., None]
    colours = 255 * matplotlib.colormaps[_COLOURS](values)[..., :3]
    return Image.fromarray(np.rint(shown * grey + (1 - shown) * colours).astype(np.uint8))
