"""Split images into training and validation images, by what is in them. Imports no torch."""

from collections.abc import Sequence

# Of the distinct images of each class.
VAL_FRACTION = 0.2


def choose_validation(labels: Sequence[str], digests: Sequence[bytes]) -> list[bool]:
    """Choose a fifth of the images of each class for validation.

    The same images always give the same split, whatever their names and order. Images with the same pixels come to
    the same side. A class of one distinct image has no validation image, and one of two to seven has one.

    Args:
        labels: The class of each image.
        digests: The hash of the pixels of each image.

    Returns:
        list[bool]: Whether each image is for validation.
    """
    distinct: dict[str, set[bytes]] = {}
    for label, digest in zip(labels, digests, strict=True):
        distinct.setdefault(label, set()).add(digest)
    # an image in two classes, which is a mistake, stays where the first of them puts it
    is_validation: dict[bytes, bool] = {}
    for label in sorted(distinct):
        members = sorted(distinct[label])
        num = max(round(VAL_FRACTION * len(members)), 1) if len(members) > 1 else 0
        for i, digest in enumerate(members):
            is_validation.setdefault(digest, i < num)
    return [is_validation[digest] for digest in digests]
