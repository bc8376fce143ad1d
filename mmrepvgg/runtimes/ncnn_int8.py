"""int8 files of ncnn. Its own tools are not in its package, so the files are written here. Imports no torch."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .quantizer import Int8Model, Quantizer, find_layer

if TYPE_CHECKING:
    import numpy as np

    from .metadata import ExportMetadata
    from .ncnn_files import Layer

# Keys of the parameters of a convolution that say that it is int8, and how many groups it has.
_INT8_KEY, _GROUPS_KEY = '8', '7'
# The largest value of ncnn's int8.
_MAX = 127


@dataclass(frozen=True)
class NcnnInt8Model(Int8Model):
    """The layers of a float32 file, and the largest absolute values of their inputs.

    ncnn rounds the input of an int8 layer by one scale, symmetric around 0. Its int8 kernels of grouped convolutions
    give wrong numbers on x86 (seen with 1.0.20261020: overflow with 8 channels a group), so in int8 each group is a
    convolution of its own, with one scale for each output channel.

    Attributes:
        parts: The layers.
        peaks: Largest absolute value of a blob, by its name.
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
    """

    parts: 'list[Layer]'
    peaks: dict[str, float]
    granularity: str

    def write(self, path: Path, metadata: 'ExportMetadata', float_layers: Collection[str] = ()) -> None:
        from .ncnn_files import write_layers

        layers: list[Layer] = []
        for part in self.parts:
            if part.weight is None or find_layer(part.name) in float_layers:
                layers.append(part)
            else:
                layers += self._quantize(part)
        write_layers(layers, path, metadata.to_json())

    def _quantize(self, layer: 'Layer') -> 'list[Layer]':
        import numpy as np

        assert layer.weight is not None
        weights = layer.weight.reshape(int(layer.params['0']), -1)
        largest = np.abs(weights).max(1)
        if self.granularity == 'per-tensor':
            largest = np.full_like(largest, largest.max())
        scales = _MAX / np.where(largest > 0, largest, 1)
        peak = self.peaks[layer.inputs[0]]
        int8 = replace(
            layer,
            params={**layer.params, _INT8_KEY: '1'},
            weight=np.rint(weights * scales[:, None]).astype(np.int8),
            constants=[*layer.constants, scales, np.array([_MAX / (peak or 1)])],
        )
        return _split_groups(int8) if layer.type == 'ConvolutionDepthWise' else [int8]


class NcnnQuantizer(Quantizer):
    """This project's writer of ncnn's int8 files."""

    name = 'ncnn'
    calibrations = ('minmax',)
    keeps_rounded = True

    def calibrate(
        self, path: Path, batches: 'Iterable[np.ndarray]', *, granularity: str, calibration: str
    ) -> Int8Model:
        import numpy as np

        from .ncnn_files import get_weights_path, read_layers
        from .ncnn_network import compute_blobs, load_network

        layers = read_layers(path, get_weights_path(path))
        names = list(dict.fromkeys(layer.inputs[0] for layer in layers if layer.weight is not None))
        peaks = dict.fromkeys(names, 0.0)
        network = load_network(path)
        for batch in batches:
            for image in batch:
                for name, blob in zip(names, compute_blobs(network, image.astype(np.float32), names), strict=True):
                    peaks[name] = max(peaks[name], float(np.abs(blob).max()))
        can_be_int8 = {find_layer(layer.name): True for layer in layers if layer.weight is not None}
        return NcnnInt8Model(can_be_int8, layers, peaks, granularity)


def _split_groups(layer: 'Layer') -> 'list[Layer]':
    """Make a grouped int8 convolution a convolution for each group."""
    import numpy as np

    from .ncnn_files import Layer

    assert layer.weight is not None
    params = dict(layer.params)
    num_groups, num_outputs = int(params.pop(_GROUPS_KEY)), int(params['0'])
    params['0'] = str(num_outputs // num_groups)
    params['6'] = str(layer.weight.size // num_groups)
    names = [f'{layer.name}.{group}' for group in range(num_groups)]
    # numbers for each output channel, and the scale of the input for all groups
    *by_channel, scale = layer.constants
    constants = [
        [*parts, scale] for parts in zip(*(np.split(values, num_groups) for values in by_channel), strict=True)
    ]
    convolutions = [
        Layer('Convolution', name, [f'{name}.in'], [f'{name}.out'], params, weight, numbers)
        for name, weight, numbers in zip(names, np.split(layer.weight, num_groups), constants, strict=True)
    ]
    # -233 stands for an equal share
    shares = ','.join([str(num_groups), *['-233'] * num_groups])
    return [
        Layer('Slice', f'{layer.name}.slice', layer.inputs, [f'{name}.in' for name in names], {'-23300': shares}),
        *convolutions,
        Layer('Concat', f'{layer.name}.concat', [f'{name}.out' for name in names], layer.outputs, {}),
    ]
