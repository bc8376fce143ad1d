"""What an exported file says about itself."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ExportMetadata:
    """The record inside an exported file.

    Attributes:
        arch: The preset's name, or the arch dict as JSON.
        classes: Names in the order of the outputs; empty if the checkpoint has none.
        num_classes: Number of outputs.
        channels: Channels of the image.
        input_size: Height and width in pixels.
        batch_size: The one batch size that the file takes, or None: it takes any.
        mean: What is subtracted from each channel, after the change to RGB; empty for no normalisation.
        std: What each channel is divided by.
        to_rgb: Whether the network wants RGB where images are read as BGR.
        precision: ``'fp32'``, ``'fp16'``, ``'bf16'`` or ``'int8'``.
        with_preprocess: Whether normalisation and the change to RGB are inside: the input is then uint8 BGR (whichever
            order the reader of images gives, if not ``to_rgb``), otherwise normalised float32.
        softmax: Whether the output is probabilities instead of logits.
        source_sha256: SHA-256 of the checkpoint from which the file was made.
        version: This project's version that wrote it.
    """

    arch: str
    classes: tuple[str, ...]
    num_classes: int
    channels: int
    input_size: tuple[int, int]
    batch_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_rgb: bool
    precision: str
    with_preprocess: bool
    softmax: bool
    source_sha256: str
    version: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None, path: Any) -> 'ExportMetadata':
        """Read what :meth:`to_json` gave; ``path`` is for the message.

        Raises:
            ValueError: If it is no such text.
        """
        try:
            values = json.loads(text or '')
            known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls)}
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f'{path} holds no metadata of mmrepvgg (input size, normalisation, classes), without which it can not '
                'be run rightly; write it with `export_model` of this version'
            ) from None
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        return cls(**known)
