"""The quantizer for int8 ExecuTorch files: PyTorch's PT2E for XNNPACK. Imports no torch."""

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .executorch_core import silencing
from .executorch_files import export_program, save_program
from .quantizer import Int8Model, Quantizer, Ranges
from .quiet import quiet
from .ranges import assign_ranges
from .torch_export import TORCH_EXPORT

if TYPE_CHECKING:
    import numpy as np

    from .metadata import ExportMetadata


@dataclass(frozen=True)
class XnnpackInt8Model(Int8Model):
    """A float32 program with the ranges of its activations.

    A convolution in int8 has an int8 weight, symmetric around 0, and int8 inputs and outputs. A linear layer in int8
    finds the range of its inputs when it runs, and its outputs are float32. So no scores are cut or rounded.

    Attributes:
        module: The float32 program as a ``torch.fx.GraphModule``.
        ranges: Smallest and largest value of inputs and outputs of convolutions, by the name of the tensor.
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
        simulated: Names of convolutions that compute in float32 on the values of int8: only the range of their input
            is known, and XNNPACK needs that of their output, too.
    """

    module: Any
    ranges: Mapping[str, tuple[float, float]]
    granularity: str
    simulated: frozenset[str] = frozenset()

    def write(self, path: Path, metadata: 'ExportMetadata', float_layers: Collection[str] = ()) -> None:
        save_program(export_program(self.convert(float_layers), metadata), path, metadata)

    def convert(self, float_layers: Collection[str] = ()) -> Any:
        """The program with all layers in int8 that can be, except ``float_layers``, as PyTorch simulates it."""
        with silencing():
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

            from .executorch_graph import LayerQuantizer

        chosen = {layer for layer, can_be_int8 in self.layers.items() if can_be_int8} - set(float_layers)
        quantizer = LayerQuantizer(chosen, self.simulated, self.ranges, self.granularity)
        with quiet():
            return convert_pt2e(prepare_pt2e(copy.deepcopy(self.module), quantizer))


class XnnpackQuantizer(Quantizer):
    """PyTorch's static quantization, for XNNPACK.

    What is int8 is chosen here, not by ExecuTorch's own ``XNNPACKQuantizer``. That one rounds the scores and the means
    of the pooling to 8 bits, cuts scores outside of the calibrated range, and lets no step be smaller than 2**-12.
    """

    name = 'pt2e'
    calibrations = ('minmax', 'histogram')
    takes_ranges = True
    keeps_rounded = True
    packages = ('torchao',)
    extra = 'executorch'
    source = TORCH_EXPORT

    def calibrate(
        self, path: Path, batches: 'Iterable[np.ndarray]', *, granularity: str, calibration: str
    ) -> Int8Model:
        import torch

        module = _load_module(path)
        from .executorch_graph import find_layers, observe

        ranges = observe(module, map(torch.from_numpy, batches), calibration)
        return XnnpackInt8Model(dict.fromkeys(find_layers(module), True), module, ranges, granularity)

    def use_ranges(self, path: Path, ranges: Ranges, *, granularity: str) -> Int8Model:
        module = _load_module(path)
        from .executorch_graph import find_convolutions, find_layers, find_output

        convolutions = find_convolutions(module)
        given = assign_ranges(ranges, {layer: node.args[0].name for layer, node in convolutions.items()})
        # the grid has a point at 0
        tensors = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in given.items()}
        can_be_int8 = {layer for layer in ranges if find_output(convolutions[layer]).name in tensors}
        if not can_be_int8:
            raise ValueError(
                'ExecuTorch needs the range of the output of a convolution, too, and no output here is the input of a '
                'convolution whose range is given or trained; write an .onnx file, or quantize a checkpoint in deploy '
                'form, whose ranges are calibrated'
            )
        layers = {layer: layer in can_be_int8 for layer in find_layers(module)}
        return XnnpackInt8Model(layers, module, tensors, granularity, frozenset(ranges) - can_be_int8)


def _load_module(path: Path) -> Any:
    import torch

    with silencing():  # the first import of torchao warns
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        from .executorch_graph import LayerQuantizer
    with quiet():
        module = torch.export.load(path).module(check_guards=False)
        # it fuses batch norms with convolutions: the ranges must be those of the nodes that are left
        return prepare_pt2e(module, LayerQuantizer((), (), {}, 'per-channel'))
