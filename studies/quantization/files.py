"""The int8 files that the study makes of a model. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrepvgg.quantization.settings import QuantizationSettings


@dataclass(frozen=True)
class FileKind:
    """A kind of int8 file.

    Attributes:
        title: What it is, for the legend.
        suffix: Ending of the file, which chooses the runtime.
        granularity: ``'per-tensor'`` or ``'per-channel'``: what has a scale of its own in the weights.
        options: Further settings. Without any the file is what ``mmrepvgg quantize`` writes by default.
    """

    title: str
    suffix: str
    granularity: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> QuantizationSettings:
        return QuantizationSettings(self.granularity, **self.options)


_PLAIN = dict(equalize=False, adaptive_rounding=False)
_EQUALIZED = dict(equalize=True, adaptive_rounding=False)

# Files by the names of their columns in the tables. The names begin with t, one scale per tensor, or c, per channel.
FILES = {
    't plain': FileKind('as the runtime makes it', '.onnx', 'per-tensor', _PLAIN),
    't eq': FileKind('equalized', '.onnx', 'per-tensor', _EQUALIZED),
    't eq pct': FileKind(
        'the same with percentile ranges', '.onnx', 'per-tensor', _EQUALIZED | dict(calibration='percentile')
    ),
    't rounded': FileKind('rounded adaptively', '.onnx', 'per-tensor', dict(equalize=False)),
    't': FileKind('both, the default', '.onnx', 'per-tensor'),
    'c plain': FileKind('as the runtime makes it', '.onnx', 'per-channel', _PLAIN),
    'c': FileKind('rounded adaptively, the default', '.onnx', 'per-channel'),
    'c eq': FileKind('equalized and rounded adaptively', '.onnx', 'per-channel', dict(equalize=True)),
    'ov t plain': FileKind("OpenVINO's by NNCF", '.xml', 'per-tensor', dict(equalize=False)),
    'ov t': FileKind('the same, equalized, the default', '.xml', 'per-tensor'),
    'ov c': FileKind("OpenVINO's by NNCF, the default", '.xml', 'per-channel'),
    'ov/ORT c': FileKind(
        "OpenVINO's by ONNX Runtime's quantizer", '.xml', 'per-channel', dict(quantizer='onnxruntime')
    ),
}
LEGEND = 'int8 by ONNX Runtime where nothing else is said. ' + '; '.join(
    f'{name}: {kind.granularity}, {kind.title}' for name, kind in FILES.items()
)
# The file that the analysis predicts, by granularity and treatment.
PREDICTED = {
    ('per-tensor', ''): 't plain',
    ('per-tensor', 'equalized'): 't eq',
    ('per-tensor', 'equalized and rounded adaptively'): 't',
    ('per-channel', ''): 'c plain',
}
# Its loss is what the traits of a model explain.
EXPLAINED = 't plain'
