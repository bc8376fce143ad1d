"""The int8 files that the study makes of a model. Imports no torch."""

from dataclasses import dataclass

from mmrepvgg.quantization.analysis.results import CLIP_SCALES
from mmrepvgg.quantization.settings import QuantizationSettings


@dataclass(frozen=True)
class FileKind:
    """A kind of int8 file.

    Attributes:
        suffix: Ending of the file, which chooses the runtime.
        settings: Settings of the quantization.
    """

    suffix: str
    settings: QuantizationSettings

    @property
    def is_plain(self) -> bool:
        """Whether the runtime's default quantizer makes it, without changes to the model."""
        return self.settings.quantizer is None and self.settings.clip_scales is None


PER_TENSOR, PER_CHANNEL = 'ORT t', 'ORT c'

# Files by the names of their columns in the tables.
FILES = {
    PER_TENSOR: FileKind('.onnx', QuantizationSettings('per-tensor')),
    PER_CHANNEL: FileKind('.onnx', QuantizationSettings('per-channel')),
    'ov t': FileKind('.xml', QuantizationSettings('per-tensor')),
    'ov c': FileKind('.xml', QuantizationSettings('per-channel')),
    'ov/ORT c': FileKind('.xml', QuantizationSettings('per-channel', quantizer='onnxruntime')),
    'clipped': FileKind('.onnx', QuantizationSettings('per-tensor', clip_scales=CLIP_SCALES)),
}
LEGEND = (
    "ORT: ONNX Runtime; ov: OpenVINO, by NNCF; ov/ORT: OpenVINO, by ONNX Runtime's quantizer; t, c: int8 with one "
    f"scale per tensor, per channel; clipped: ORT t after the batch norms' scales were limited to {CLIP_SCALES:g} "
    'times their median'
)
# Files that the analysis predicts, by granularity.
PREDICTED = {'per-tensor': PER_TENSOR, 'per-channel': PER_CHANNEL}
