"""What an image is like. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """What an image is like.

    Attributes:
        fault: Why it can't be read; empty if it can.
        digest: Hash of its pixels on white. Two files with the same pixels have the same one.
        height: Height in pixels.
        width: Width in pixels.
        is_transparent: It is transparent in places.
        is_one_colour: All its pixels are alike.
    """

    fault: str = ''
    digest: bytes = b''
    height: int = 0
    width: int = 0
    is_transparent: bool = False
    is_one_colour: bool = False
