"""Fuse an ONNX file that somebody exported with its branches and norms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.writing import require_writable
from ..reparam.report import SwitchReport
from .format import require_packages


@dataclass(frozen=True)
class OnnxFusion:
    """The result of :func:`mmrepvgg.fuse_onnx`.

    Attributes:
        report: What was fused and what is left, with the difference of the outputs.
        num_inputs: Number of inputs on which the difference was measured.
        num_nodes: Number of nodes before and after.
    """

    report: SwitchReport
    num_inputs: int
    num_nodes: tuple[int, int]


def fuse_onnx(
    source: str | Path,
    destination: str | Path,
    *,
    data: str | Path | None = None,
    input_size: Sequence[int] | None = None,
    tolerance: float | None = None,
) -> OnnxFusion:
    """Fuse an ONNX file: what one convolution computes exactly, for inputs of all sizes, becomes one.

    Parallel branches (RepVGG, MobileOne and all like them), and convolutions with a batch norm or a scale. For those
    who have no more than the file; a model in PyTorch is switched by :func:`mmrepvgg.reparameterize`. Nothing else in
    the file changes. Both files are run and compared before the new one is put in place. Its weights are in the same
    file; if they are more than 2 GB, they are in ``<destination>.data``.

    Args:
        source: The file, of opset 7 or later. Weights may be in other files beside it.
        destination: File to write.
        data: Image or folder of images on which the files are compared. Default: seeded noise.
        input_size: Height and width of the images, where the file leaves them free. Default: usual ones are tried.
        tolerance: Largest allowed difference, relative to the largest number of the output. Default: 1e-4; 1e-2 for
            float16, 5e-2 for bfloat16 weights.

    Raises:
        ValueError: If ``destination`` is ``source``, or if ``data`` does not go with the model.
        MissingPackageError: If ONNX or ONNX Runtime is not installed.
        CheckpointError: If the file can't be read or run.
        ExportError: If the outputs differ by more than ``tolerance``. Nothing is written.
    """
    require_packages('ONNX files', ('onnx', 'onnxruntime'), 'onnx')
    from .onnx_fuse import fuse_file

    source, destination = Path(source), Path(destination)
    if destination.exists() and destination.samefile(source):
        raise ValueError(f'`destination` must be another file than `source`, got {source} for both')
    require_writable(destination)
    return fuse_file(source, destination, data, input_size, tolerance)
