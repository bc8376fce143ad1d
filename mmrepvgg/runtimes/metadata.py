"""The description that is stored in an exported file."""

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from ..data.plain_pipelines import Pipeline, is_plain_pipeline


@dataclass(frozen=True)
class ExportMetadata:
    """The description of an exported file.

    Attributes:
        arch: Name of the preset, or the arch dict as JSON; of other networks a name, such as ``'timm:mobileone_s0'``.
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
        pipeline: Steps of the test pipeline, by which an image file becomes an image. Empty if the config has a step
            that only its own code knows, and in files of earlier versions.
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
    pipeline: Pipeline = ()

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
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(
                f'{path} holds no metadata of mmrepvgg (input size, normalisation, classes), and nothing else says how '
                'to run it; write it with `export_model` of this version'
            ) from None
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
        }
        metadata = cls(**arguments)
        for name, is_right in _list_checks(metadata).items():
            if not is_right:
                shown = repr(getattr(metadata, name))[:80]
                raise ValueError(f'{path} has metadata that make no sense: {name} is {shown}; export again')
        return metadata


def _list_checks(metadata: ExportMetadata) -> dict[str, bool]:
    """Whether the attributes have their types and can belong together: a file may say anything."""

    def is_count(value: Any) -> bool:
        return type(value) is int and 1 <= value < 1 << 24

    def are_numbers(values: Any) -> bool:
        return isinstance(values, tuple) and all(
            type(value) in (int, float) and math.isfinite(value) for value in values
        )

    texts = {name: isinstance(getattr(metadata, name), str) for name in ('arch', 'source_sha256', 'version')}
    flags = {
        name: isinstance(getattr(metadata, name), bool)
        for name in ('to_rgb', 'with_preprocess', 'softmax', 'dynamic_size')
    }
    counts = {name: is_count(getattr(metadata, name)) for name in ('num_classes', 'channels')}
    has_counts = all(counts.values())
    sizes, names, lengths = metadata.input_size, metadata.classes, (0, 1, metadata.channels)
    return {
        **texts,
        **flags,
        **counts,
        'input_size': isinstance(sizes, tuple) and len(sizes) == 2 and all(map(is_count, sizes)),
        'batch_size': metadata.batch_size is None or is_count(metadata.batch_size),
        'precision': metadata.precision in ('fp32', 'fp16', 'bf16', 'int8'),
        'classes': has_counts
        and isinstance(names, tuple)
        and len(names) in (0, metadata.num_classes)
        and all(isinstance(name, str) for name in names),
        'mean': are_numbers(metadata.mean) and len(metadata.mean) in lengths,
        'std': are_numbers(metadata.std) and len(metadata.std) == len(metadata.mean) and all(metadata.std),
        'pipeline': is_plain_pipeline(metadata.pipeline),
    }
