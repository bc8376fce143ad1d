"""ncnn's two files: a text with the graph (.param), and the weights (.bin). Imports no ncnn.

The .param lists the layers in the order in which they run, the .bin their weights in the same order, without names.
Source: ncnn's docs, "param and model file structure".
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.reading import CheckpointError, hash_file
from .format import ENTRY

_MAGIC = '7767517'
# Types of layers with weights and a bias, by the key of the parameter that has the number of weights, and by the key of
# the one that says whether there is a bias.
WEIGHTED = {'Convolution': ('6', '5'), 'ConvolutionDepthWise': ('6', '5'), 'InnerProduct': ('2', '1')}
# The words before the weights of a layer that say how they are stored.
_FLOAT32, _FLOAT16, _INT8 = 0, 0x01306B47, 0x000D4B38


@dataclass
class Layer:
    """A layer, as a line of the .param.

    Attributes:
        type: Type of the layer.
        name: Name of the layer.
        inputs, outputs: Names of blobs.
        params: Parameters by their keys, which are numbers.
        weight: Weights of a layer in ``WEIGHTED``, flat: float32, or int8.
        constants: The other numbers of the layer, in the order of the .bin: its bias, and the scales of int8 weights.
            For a type that is not in ``WEIGHTED`` all its numbers.
        half: Whether the weights are stored as float16.
    """

    type: str
    name: str
    inputs: list[str]
    outputs: list[str]
    params: dict[str, str]
    weight: np.ndarray | None = None
    constants: list[np.ndarray] = field(default_factory=list)
    half: bool = False

    def __str__(self) -> str:
        counts = f'{len(self.inputs)} {len(self.outputs)}'
        params = (f'{key}={value}' for key, value in self.params.items())
        return ' '.join((self.type, self.name, counts, *self.inputs, *self.outputs, *params))


def get_weights_path(path: Path) -> Path:
    """The .bin of a .param. Its name has ``ncnn`` in it, because OpenVINO's files have a .bin too."""
    return path.with_name(f'{path.stem.removesuffix(".ncnn")}.ncnn.bin')


def read_layers(path: Path, weights_path: Path) -> list[Layer]:
    """Read both files.

    Raises:
        ValueError: If the .bin does not hold the weights of the .param.
    """
    lines = path.read_text().splitlines()
    count = int(lines[1].split()[0])
    layers = [_parse(line) for line in lines[2 : 2 + count]]
    content = memoryview(weights_path.read_bytes())
    position = 0
    for layer in layers:
        position = _read_weights(layer, content, position)
    if position != len(content):
        raise ValueError(f'{weights_path} has {len(content)} bytes, but the layers of {path} take {position}')
    return layers


def write_layers(layers: Iterable[Layer], path: Path, record: str) -> None:
    """Write both files.

    Args:
        layers: The layers.
        path: The .param. The .bin goes beside it.
        record: JSON that goes into the .param, together with the hashes of both files.
    """
    layers = list(layers)
    weights_path = get_weights_path(path)
    with weights_path.open('wb') as file:
        for layer in layers:
            file.writelines(_iterate_bytes(layer))
    num_blobs = len({name for layer in layers for name in layer.outputs})
    graph = '\n'.join([_MAGIC, f'{len(layers)} {num_blobs}', *map(str, layers), ''])
    seal = dict(graph_sha256=_hash(graph, record), weights_sha256=hash_file(weights_path), record=record)
    # ncnn reads as many lines as there are layers
    path.write_text(f'{graph}{ENTRY} {json.dumps(seal)}\n')


def read_record(path: Path) -> str | None:
    """Check the hashes of both files before ncnn reads them, which does not check what it reads.

    Returns:
        str: The ``record`` of :func:`write_layers`; None if the file has none.

    Raises:
        CheckpointError: If one file is damaged, or the files are not of one pair.
        FileNotFoundError: If there is no .bin.
    """
    weights_path = get_weights_path(path)
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise CheckpointError(f'{path} is damaged, or is no .param of ncnn in text form: {error}') from None
    if not text.startswith(_MAGIC):
        raise CheckpointError(f'{path} is damaged, or is no .param of ncnn in text form')
    graph, found, seal_text = text.rpartition(f'\n{ENTRY} ')
    try:
        seal: Any = json.loads(seal_text)
        graph_hash, weights_hash, record = seal['graph_sha256'], seal['weights_sha256'], seal['record']
    except (ValueError, KeyError, TypeError):
        if not found:
            return None
        raise CheckpointError(f'{path} is damaged in its last line; export again') from None
    if _hash(f'{graph}\n', record) != graph_hash:
        raise CheckpointError(f'{path} was changed after it was written, or is damaged; export again')
    if not weights_path.is_file():
        raise FileNotFoundError(
            f'{weights_path} does not exist; an ncnn model is two files, {path.name} and {weights_path.name}'
        )
    if hash_file(weights_path) != weights_hash:
        raise CheckpointError(f'{weights_path} is not the file that was written with {path}; export again')
    return record


def _hash(graph: str, record: Any) -> str:
    return hashlib.sha256(f'{graph}{record}'.encode()).hexdigest()


def _parse(line: str) -> Layer:
    kind, name, num_inputs, num_outputs, *rest = line.split()
    middle, end = int(num_inputs), int(num_inputs) + int(num_outputs)
    params = dict(part.split('=', 1) for part in rest[end:])
    return Layer(kind, name, rest[:middle], rest[middle:end], params)


def _read_weights(layer: Layer, content: memoryview, position: int) -> int:
    """Take the numbers of a float layer from ``content``, and return the position behind them."""
    if layer.type == 'MemoryData':
        sizes = [int(layer.params[key]) for key in ('0', '1', '11', '2') if key in layer.params]
        layer.constants = [np.frombuffer(content, np.float32, int(np.prod(sizes)), position)]
        return position + layer.constants[0].nbytes
    if layer.type not in WEIGHTED:
        return position
    size_key, bias_key = WEIGHTED[layer.type]
    size = int(layer.params[size_key])
    flag = int.from_bytes(content[position : position + 4], 'little')
    if flag not in (_FLOAT32, _FLOAT16):
        raise ValueError(f'the weights of {layer.name} must be float32 or float16')
    layer.half = flag == _FLOAT16
    stored = np.frombuffer(content, np.float16 if layer.half else np.float32, size, position + 4)
    layer.weight = stored.astype(np.float32)
    position += 4 + _pad(stored.nbytes)
    if layer.params.get(bias_key) == '1':
        layer.constants = [np.frombuffer(content, np.float32, int(layer.params['0']), position)]
        position += layer.constants[0].nbytes
    return position


def _iterate_bytes(layer: Layer) -> Iterator[bytes]:
    if layer.weight is not None:
        is_int8 = layer.weight.dtype == np.int8
        yield (_INT8 if is_int8 else _FLOAT16 if layer.half else _FLOAT32).to_bytes(4, 'little')
        stored = layer.weight.astype(np.float16 if layer.half and not is_int8 else layer.weight.dtype)
        yield stored.tobytes()
        yield bytes(_pad(stored.nbytes) - stored.nbytes)
    for values in layer.constants:
        yield values.astype(np.float32).tobytes()


def _pad(num_bytes: int) -> int:
    """Weights start at multiples of 4 bytes."""
    return -(-num_bytes // 4) * 4
