"""The description that is stored in an exported file."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ExportMetadata:
    """The description of an exported file.

    Attributes:
        arch: Name of the preset, or the arch dict as JSON.
        classes: Names of the classes in the order of the outputs; empty if the checkpoint has none.
        num_classes: Number of outputs.
        channels: Number of channels of an image.
        input_size: Height and width of an image in pixels.
        batch_size: Number of images that the file takes. None means any number.
        mean: Numbers that are subtracted from the channels, after the change to RGB; empty for no normalisation.
        std: Numbers by which the channels are divided.
        to_rgb: Whether the network takes RGB, and images that are read as BGR must be changed.
        precision: ``'fp32'``, ``'fp16'``, ``'bf16'`` or ``'int8'``.
        with_preprocess: Whether normalisation and the change to RGB are inside the file. The input is then uint8, in
            BGR if ``to_rgb``. Otherwise it is normalised float32.
        softmax: Whether the outputs are probabilities instead of logits.
        source_sha256: SHA-256 of the checkpoint from which the file was made.
        version: Version of this project that wrote the file.
        dynamic_size: Whether the file takes images of any height and width. ``input_size`` is then a proposal.
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
    dynamic_size: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None, path: Any) -> 'ExportMetadata':
        """Read a text of :meth:`to_json`.

        Args:
            text: The text; None if the file has none.
            path: Name of the file, for the message.

        Raises:
            ValueError: If the text is not of :meth:`to_json`.
        """
        try:
            values = json.loads(text or '')
            # an entry that came later is missing in the files of earlier versions
            known: dict[str, Any] = {
                field.name: values[field.name]
                for field in fields(cls)
                if field.name in values or field.default is MISSING
            }
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f'{path} holds no metadata of mmrepvgg (input size, normalisation, classes), and nothing else says how '
                'to run it; write it with `export_model` of this version'
            ) from None
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        return cls(**known)
