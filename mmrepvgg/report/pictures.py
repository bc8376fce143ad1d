"""Pictures of a report, each as a text that stands in the page itself."""

import base64
import io
from collections.abc import Mapping

import matplotlib
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# Largest edge of a picture in pixels; small images are enlarged.
_EDGE = 192
# Output and input channels of a kernel that are shown.
NUM_CHANNELS = 8
# Pixels of an edge of a weight.
_WEIGHT = 5
_COLOURS = 'RdBu_r'
_RIGHT, _WRONG = (38, 122, 201), (220, 110, 38)


def enlarge(picture: Image.Image) -> Image.Image:
    """The picture, so that its longer edge has a fixed number of pixels."""
    factor = _EDGE / max(picture.size)
    width, height = (max(1, round(edge * factor)) for edge in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def to_jpeg_uri(picture: Image.Image) -> str:
    """A photo as a data URI."""
    return _to_uri(picture, 'jpeg', quality=88)


def take_tiles(kernel: Tensor) -> Tensor:
    """The part of a kernel ``(C_out, C_in, k, k)`` that is drawn."""
    return kernel[:NUM_CHANNELS, :NUM_CHANNELS]


def draw_kernel(kernel: Tensor, limit: float) -> str:
    """Draw the first channels of a kernel as tiles: a row an output channel, a column an input channel.

    Args:
        kernel: Weights ``(C_out, C_in, k, k)``.
        limit: Absolute value from which on the colour is the darkest: negative blue, zero white, positive red.

    Returns:
        str: A PNG as a data URI, transparent between the tiles.
    """
    values = (take_tiles(kernel) / max(limit, 1e-12) / 2 + 0.5).clamp(0, 1)
    colours = matplotlib.colormaps[_COLOURS](values.numpy(), bytes=True)
    enlarged = torch.from_numpy(colours).repeat_interleave(_WEIGHT, 2).repeat_interleave(_WEIGHT, 3)
    rows, columns, edge, *_ = enlarged.shape
    spaced = F.pad(enlarged, (0, 0, 0, _WEIGHT, 0, _WEIGHT))  # (C_out, C_in, edge + gap, edge + gap, 4)
    size = edge + _WEIGHT
    sheet = spaced.permute(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 4)[:-_WEIGHT, :-_WEIGHT]
    return _to_uri(Image.fromarray(sheet.contiguous().numpy()), 'png', optimize=True)


def draw_matrix(shares: Mapping[tuple[int, int], float], num_classes: int) -> str:
    """Draw a confusion matrix, a pixel a pair of classes: blue on the diagonal, orange elsewhere.

    Args:
        shares: Share of the images of the first class that are predicted as the second one.
        num_classes: Number of rows and columns.

    Returns:
        str: A PNG as a data URI, transparent where nothing is, and fainter where the share is small.
    """
    sheet = torch.zeros(num_classes, num_classes, 4, dtype=torch.uint8)
    for (label, predicted), share in shares.items():
        colour = _RIGHT if label == predicted else _WRONG
        sheet[label, predicted] = torch.tensor([*colour, round(255 * (0.3 + 0.7 * share))])
    return _to_uri(Image.fromarray(sheet.numpy()), 'png', optimize=True)


def _to_uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}'
