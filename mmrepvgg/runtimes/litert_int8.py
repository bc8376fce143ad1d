"""LiteRT's quantizer, which makes int8 and fp16 LiteRT files. Imports no torch."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .quantizer import Int8Model, Quantizer
from .quiet import quiet, quiet_stderr

if TYPE_CHECKING:
    import numpy as np

    from .litert_graph import Layer
    from .metadata import ExportMetadata

DYNAMIC = 'dynamic'
# Smallest range of an output, as a part of that of the input times the largest weight.
_SMALLEST_RANGE = 1e-4
# Largest numbers: what stands around the images of a max pooling.
_PADDING = 3e38
# Largest weights that the quantizer rounds in one piece.
_MAX_BYTES = 32 * 2**20
_GRANULARITIES = {'per-channel': 'CHANNELWISE', 'per-tensor': 'TENSORWISE'}


@dataclass(frozen=True)
class LitertInt8Model(Int8Model):
    """A float32 LiteRT file with the ranges of its activations.

    The ends of the network stay float32. A layer in int8 has an int8 weight, symmetric around 0. With static ranges its
    input and its output are int8 too, and so are the operators between it and the layer before. With dynamic ranges
    the runtime rounds the input of the layer to int8 by the range of each image, and all activations are float32.

    Attributes:
        content: The float32 file.
        ranges: Smallest and largest value of each tensor, by its name; None for dynamic ranges.
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
    """

    content: bytes
    ranges: Mapping[str, tuple[float, float]] | None
    granularity: str

    def write(self, path: Path, metadata: 'ExportMetadata', float_layers: Collection[str] = ()) -> None:
        from .litert_graph import parse_model, save_model, set_batch

        layers = [layer for layer, can_be_int8 in self.layers.items() if can_be_int8 and layer not in float_layers]
        model = parse_model(self._quantize(layers) if layers else self.content)
        set_batch(model, metadata.batch_size)
        save_model(model, path, metadata)

    def _quantize(self, layers: Iterable[str]) -> bytearray:
        import numpy as np
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.recipe_manager import AlgorithmName, RecipeManager

        operations = qtyping.TFLOperationName
        granularity = qtyping.QuantGranularity[_GRANULARITIES[self.granularity]]
        recipe = RecipeManager()
        for layer in layers:
            # an operator is found by the name of its output: this layer, or what is between it and the one before
            pattern = rf'^{re.escape(layer)}[/;]'
            if self.ranges is None:
                recipe.add_dynamic_config(pattern, operations.ALL_SUPPORTED, 8, granularity)
            else:
                recipe.add_static_config(pattern, operations.ALL_SUPPORTED, 8, 8, granularity)
        for end in (operations.INPUT, operations.OUTPUT):
            recipe.add_quantization_config('', end, algorithm_key=AlgorithmName.NO_QUANTIZE)
        ranges = None
        if self.ranges is not None:
            ranges = {
                name: {'min': np.array([low], np.float32), 'max': np.array([high], np.float32)}
                for name, (low, high) in self.ranges.items()
            }
        return _run_quantizer(self.content, recipe, ranges)


class LitertQuantizer(Quantizer):
    """LiteRT's quantizer, with the ranges of the calibration images or with dynamic ones."""

    name = 'litert'
    calibrations = ('minmax', DYNAMIC)
    without_images = (DYNAMIC,)
    keeps_rounded = True

    def calibrate(
        self, path: Path, batches: 'Iterable[np.ndarray]', *, granularity: str, calibration: str
    ) -> Int8Model:
        from .litert_graph import find_layers, parse_model

        content = path.read_bytes()
        model = parse_model(content)
        layers = find_layers(model)
        ranges = None
        if calibration != DYNAMIC:
            ranges = _measure_ranges(path, model, batches)
            _widen_points(ranges, layers)
        # with dynamic ranges LiteRT's depthwise convolutions read a scale for each channel, whether there is one or not
        fails = 'DEPTHWISE_CONV_2D' if ranges is None and granularity == 'per-tensor' else None
        can_be_int8 = {name: layer.kind != fails for name, layer in layers.items()}
        return LitertInt8Model(can_be_int8, content, ranges, granularity)


def cast_weights(model: Any) -> Any:
    """A ``ModelT`` with float16 weights in place of float32 ones. LiteRT computes in float32."""
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.recipe_manager import AlgorithmName, RecipeManager

    from .litert_graph import LAYERS, parse_model

    recipe = RecipeManager()
    for kind in LAYERS:
        recipe.add_weight_only_config(
            '',
            qtyping.TFLOperationName[kind],
            16,
            qtyping.QuantGranularity.TENSORWISE,
            algorithm_key=AlgorithmName.FLOAT_CASTING,
        )
    return parse_model(_run_quantizer(flatbuffer_utils.convert_object_to_bytearray(model), recipe, None))


def _measure_ranges(path: Path, model: Any, batches: 'Iterable[np.ndarray]') -> dict[str, tuple[float, float]]:
    """The smallest and largest value of each float32 activation.

    LiteRT's calibrator takes moving averages of them. They fall short of the data, and int8 then cuts the logits.
    """
    import numpy as np
    import torch

    from .litert_graph import list_activations

    with quiet(), quiet_stderr():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(
            str(path), num_threads=torch.get_num_threads(), experimental_preserve_all_tensors=True
        )
    (source,) = interpreter.get_input_details()
    names = list_activations(model)
    ranges: dict[str, tuple[float, float]] = {}
    for batch in batches:
        interpreter.resize_tensor_input(source['index'], list(batch.shape))
        with quiet_stderr():
            interpreter.allocate_tensors()
        interpreter.set_tensor(source['index'], batch)
        interpreter.invoke()
        for index, name in names.items():
            values = interpreter.get_tensor(index)
            values = values[abs(values) < _PADDING]
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, values.min()), max(high, values.max())
    return ranges


def _widen_points(ranges: dict[str, tuple[float, float]], layers: 'Mapping[str, Layer]') -> None:
    """Widen the ranges of outputs that hardly vary, such as of a layer whose channels ReLU cuts off.

    LiteRT refuses a layer whose output has a scale of less than 1/256 of the product of those of input and weight.
    """
    for name, layer in layers.items():
        low, high = ranges[layer.source]
        smallest = _SMALLEST_RANGE * (high - low) * abs(layer.weight).max()
        low, high = ranges[name]
        ranges[name] = low, max(high, low + smallest)


@contextmanager
def _rounding_in_slices() -> Iterator[None]:
    """Give large weights to the quantizer's rounding in slices.

    From 32 MiB on it takes slices itself, but fails there if the weights have more than two axes (seen with 0.10.0), as
    those of the last stages of B1 and larger archs.
    """
    import numpy as np
    from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as rounding

    whole = rounding.uniform_quantize

    def round_slices(values: 'np.ndarray', params: Any, *args: Any, **kwargs: Any) -> Any:
        num_slices = -(-values.nbytes // _MAX_BYTES)
        if values.ndim < 3 or num_slices == 1:
            return whole(values, params, *args, **kwargs)
        slices = []
        for rows in np.array_split(np.arange(len(values)), num_slices):
            # a scale for each row, or one for all
            scale, zero_point = (part[rows] if part.size > 1 else part for part in (params.scale, params.zero_point))
            slices.append(whole(values[rows], replace(params, scale=scale, zero_point=zero_point), *args, **kwargs))
        return np.concatenate(slices)

    rounding.uniform_quantize = round_slices
    try:
        yield
    finally:
        rounding.uniform_quantize = whole


def _run_quantizer(content: Any, recipe: Any, ranges: Any) -> bytearray:
    with quiet(), quiet_stderr(), _rounding_in_slices():
        from ai_edge_quantizer import quantizer

        worker = quantizer.Quantizer(content, recipe.get_quantization_recipe())
        result = worker.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytearray(result.quantized_model)
