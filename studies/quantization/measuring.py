"""The measurement of one model of the study: its accuracy in every precision, and its analysis."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmrepvgg.checkpoints.loading import load_weights
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.checkpoints.writing import replacing
from mmrepvgg.models.building import build_model
from mmrepvgg.models.fake_quant import set_fake_quantization
from mmrepvgg.quantization.analysis.analyze import analyze
from mmrepvgg.quantization.analysis.picture import draw_picture
from mmrepvgg.quantization.analysis.results import Analysis
from mmrepvgg.quantization.analysis.verdict import judge
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.reparam.switch import reparameterize
from mmrepvgg.runtimes.network import DeployedNetwork

from .accuracy import measure_accuracy
from .files import FILES, PREDICTED
from .subjects import Subject

RESULT = 'measured.json'


@dataclass(frozen=True)
class Measurement:
    """The measurement of one model. Accuracies are top-1 in percent, on all test images.

    Attributes:
        subject: The model.
        epochs: Number of epochs of its training.
        fp32: Accuracy of the deploy form. After quantization-aware training it may be low: the weights are not rounded,
            and per-tensor training may move them far from their rounded values.
        simulated: Accuracy of the train form, with the quantizers of quantization-aware training.
        bf16: Accuracy of the deploy form in PyTorch, all in bfloat16.
        files: Accuracies of the int8 files, by the names in :data:`FILES`. After quantization-aware training only the
            default files of its granularity.
        predicted: Predicted loss in points, by the name of the file; empty after quantization-aware training.
        traits: Traits from :func:`describe_traits`; empty after quantization-aware training.
    """

    subject: Subject
    epochs: int
    fp32: float
    simulated: float
    bf16: float
    files: Mapping[str, float]
    predicted: Mapping[str, float]
    traits: Mapping[str, float]

    @property
    def is_trained_for_int8(self) -> bool:
        """Whether training simulated int8. The files then have the ranges of training, and nothing is predicted."""
        return not self.predicted

    def drop(self, file: str) -> float:
        """The loss of an int8 file in points."""
        return self.fp32 - self.files[file]


def measure_subject(cfg: Config, checkpoint: Path, subject: Subject, folder: Path) -> None:
    """Measure one model, unless ``folder`` has the result already, and draw the analysis beside it.

    Args:
        cfg: The config with which it was trained.
        checkpoint: The checkpoint in train form.
        subject: The model.
        folder: Folder that gets ``measured.json`` and ``analysis.png``.
    """
    path = folder / RESULT
    if not path.exists():
        # training for int8 leaves nothing to predict
        is_trained_for_int8 = cfg.model.backbone.get('quantization') is not None
        analysis = None if is_trained_for_int8 else analyze(cfg, checkpoint)
        if analysis is not None:
            draw_picture(analysis, judge(analysis), folder / 'analysis.png')
        measurement = _measure(cfg, checkpoint, subject, analysis)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(measurement), indent=1) + '\n')


def read_measurement(folder: Path) -> Measurement:
    """Read the result of :func:`measure_subject`."""
    content = json.loads((folder / RESULT).read_text())
    return Measurement(**content | dict(subject=Subject(**content['subject'])))


def _measure(cfg: Config, checkpoint: Path, subject: Subject, analysis: Analysis | None) -> Measurement:
    model: Any = build_model(cfg, deploy=False)
    load_weights(model, read_checkpoint(checkpoint))
    set_fake_quantization(model, enabled=True)
    simulated = measure_accuracy(cfg, model)

    kinds = FILES
    if analysis is None:
        granularity = cfg.model.backbone.quantization['granularity']
        kinds = {name: kind for name, kind in FILES.items() if kind.granularity == granularity and not kind.options}
    files: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in kinds.items():
            result = quantize_model(cfg, checkpoint, Path(folder, f'int8{kind.suffix}'), kind.settings)
            assert result.accuracy is not None  # it is measured by default
            files[name] = result.accuracy
    deployed = reparameterize(model)
    return Measurement(
        subject=subject,
        epochs=cfg.train_cfg.max_epochs,
        fp32=measure_accuracy(cfg, model, deployed),
        simulated=simulated,
        bf16=measure_accuracy(cfg, model, DeployedNetwork(deployed, 'bf16')),
        files=files,
        predicted={
            PREDICTED[p.granularity, p.treatment]: p.drop for p in (judge(analysis).predictions if analysis else ())
        },
        traits=describe_traits(analysis) if analysis else {},
    )


def describe_traits(analysis: Analysis) -> dict[str, float]:
    """The traits that may decide whether per-tensor int8 works. Each has the value of the worst layer.

    The last two are no causes, but parts of the result: noise over signal of the logits in dB, with only the weights in
    int8 and with only the activations in int8.
    """
    layers = analysis.layers
    norms = [norm for layer in layers for norm in layer.norms]
    return {
        "largest scale of a branch's batch norm over its median": max((norm.spread for norm in norms), default=1.0),
        'nearly dead channels (running variance below eps)': float(sum(norm.num_dead for norm in norms)),
        "fused kernel: largest channel's range over the median": max(layer.kernel.channel_spread for layer in layers),
        'fused kernel: largest weight over the standard deviation': max(layer.kernel.max_over_std for layer in layers),
        'activations: largest over the 99.99th percentile': max(layer.inputs.outlier_ratio for layer in layers),
        "activations: largest channel's range over the median": max(layer.inputs.channel_spread for layer in layers),
        'noise of the logits, weights alone in int8': -analysis.find('per-tensor', activations=False).logits_snr,
        'noise of the logits, activations alone in int8': -analysis.find('per-tensor', weights=False).logits_snr,
    }
