"""The graph in a LiteRT file: the names of its tensors, its metadata, and the hash of the whole file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.seals import OPEN_SEAL, SEAL_ENTRY, check_seal, close_seal
from .format import ENTRY

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from .metadata import ExportMetadata

# Operators with weights.
LAYERS = ('CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED')
# Operators without arithmetic.
_MOVES = ('TRANSPOSE', 'RESHAPE', 'PAD')
INPUT, OUTPUT = 'images', 'scores'
_FLOAT32 = 0
_IDENTIFIER = b'TFL3'


def parse_model(content: bytes | bytearray) -> Any:
    """Read the content of a file as a ``ModelT``, the object of LiteRT's schema."""
    import numpy as np
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)
    for buffer in model.buffers:
        if buffer.data is not None:  # of anything but arrays each byte would be written by itself
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return model


def save_model(model: Any, path: Path, metadata: 'ExportMetadata') -> None:
    """Write a ``ModelT`` with its metadata and its hash. The model is changed."""
    from ai_edge_litert.tools import flatbuffer_utils

    _set_entry(model, ENTRY, metadata.to_json().encode())
    _set_entry(model, SEAL_ENTRY, OPEN_SEAL.encode())
    path.write_bytes(close_seal(flatbuffer_utils.convert_object_to_bytearray(model)))


def read_metadata(content: bytes, path: Path) -> str | None:
    """Check that a file is as :func:`save_model` wrote it, and read its metadata.

    Returns:
        str | None: The metadata as JSON; None for a file of others, which is not checked.

    Raises:
        CheckpointError: If the file is damaged, or no LiteRT file.
    """
    from ..checkpoints.reading import CheckpointError

    if content[4:8] != _IDENTIFIER:
        raise CheckpointError(f'{path} is no LiteRT file, or is damaged')
    is_whole = check_seal(content)
    if is_whole:
        return _read_entry(content)
    try:
        text = _read_entry(content)
    except Exception:  # the schema's reader checks nothing, and stumbles in many ways
        text = ''
    if is_whole is None and text is None:
        return None
    raise CheckpointError(f'{path} is damaged or incomplete: its content does not have the SHA-256 that is in it')


def _read_entry(content: bytes) -> str | None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == ENTRY.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode()
    return None


def name_tensors(model: Any, layers: Sequence[str]) -> None:
    """Name the tensors by the layers of the network, in place of its classes and modules.

    The output of a layer has the name of the layer. A tensor between two layers has the name of the second one and its
    operator, ``backbone.stage_2.0/pad_8``. The preprocessing before the first layer belongs to ``images``, and what
    comes behind the last one to ``scores``.

    Args:
        model: A ``ModelT``.
        layers: Names of the layers, in the order of computation.

    Raises:
        ExportError: If the model has other layers.
    """
    from .network import ExportError

    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    found = [operator for operator, kind in iterate_operators(model) if kind in LAYERS]
    if len(found) != len(layers):
        raise ExportError(f'the LiteRT file must have the {len(layers)} layers of the model, got {len(found)}')
    outputs = [operator.outputs[0] for operator in found]
    names = dict(zip(outputs, layers, strict=True))
    # the converter stores equal constants once, and a layer without a bias has the number -1 for it
    uses = Counter(index for operator in graph.operators for index in operator.inputs if index >= 0)
    for layer, operator in zip(layers, found, strict=True):
        for index, part in zip(operator.inputs[1:3], ('weight', 'bias'), strict=False):
            if uses[index] == 1:
                names[index] = f'{layer}.{part}'
    owners = iter([*layers, OUTPUT])
    owner = next(owners)
    for position, (operator, kind) in enumerate(iterate_operators(model)):
        if operator.outputs[0] in outputs:
            owner = next(owners)
            continue
        prefix = INPUT if owner == layers[0] and kind not in _MOVES else owner
        names[operator.outputs[0]] = f'{prefix}/{kind.lower()}_{position}'
    names[graph.inputs[0]] = INPUT
    for index, name in names.items():
        graph.tensors[index].name = name.encode()
    signature.inputs[0].name, signature.outputs[0].name = INPUT.encode(), OUTPUT.encode()


def set_batch(model: Any, size: int | None) -> None:
    """Set the batch size of a model. None leaves it free: the file has 1, which is changed when it is run.

    Args:
        model: A ``ModelT``.
        size: The batch size.
    """
    import numpy as np

    (graph,) = model.subgraphs
    images = {graph.inputs[0]}
    for operator, kind in iterate_operators(model):
        if not images & set(operator.inputs):
            continue
        images.add(operator.outputs[0])
        if kind == 'RESHAPE':
            # the new shape is a constant, in which -1 stands for any batch size
            shape = model.buffers[graph.tensors[operator.inputs[1]].buffer]
            shape.data = np.asarray([-1, *np.frombuffer(shape.data, np.int32)[1:]], np.int32).view(np.uint8)
    for index in images:
        tensor = graph.tensors[index]
        tensor.shape = [size or 1, *tensor.shape[1:]]


def list_layers(network: 'nn.Module', example: 'Tensor') -> list[str]:
    """Names of the convolutions and linear layers of a network, in the order of computation."""
    from torch import nn

    from .quantizer import find_layer

    called: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args, name=name: called.append(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return [find_layer(name) for name in called]


@dataclass(frozen=True)
class Layer:
    """A layer of a float32 model.

    Attributes:
        kind: Operator, one of :data:`LAYERS`.
        source: Name of its input.
        weight: Its weight.
    """

    kind: str
    source: str
    weight: 'np.ndarray'


def find_layers(model: Any) -> dict[str, Layer]:
    """The layers of a float32 ``ModelT`` that :func:`name_tensors` named, in the order of computation."""
    import numpy as np

    tensors = model.subgraphs[0].tensors
    layers = {}
    for operator, kind in iterate_operators(model):
        if kind in LAYERS:
            source, weight = (tensors[index] for index in operator.inputs[:2])
            values = np.frombuffer(model.buffers[weight.buffer].data, np.float32)
            layers[tensors[operator.outputs[0]].name.decode()] = Layer(kind, source.name.decode(), values)
    return layers


def list_activations(model: Any) -> dict[int, str]:
    """Names of the float32 tensors of a ``ModelT`` that depend on the images, by their numbers."""
    (graph,) = model.subgraphs
    indices = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return {index: graph.tensors[index].name.decode() for index in indices if graph.tensors[index].type == _FLOAT32}


def iterate_operators(model: Any) -> Iterator[tuple[Any, str]]:
    """The operators of a ``ModelT``, with their kinds, in the order of computation."""
    from ai_edge_litert.tools import flatbuffer_utils

    for operator in model.subgraphs[0].operators:
        yield operator, str(flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex))


def _set_entry(model: Any, name: str, value: bytes) -> None:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    entries = {entry.name: entry for entry in model.metadata or ()}
    entry = entries.get(name.encode())
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name.encode(), len(model.buffers)
        model.buffers.append(schema.BufferT())
        model.metadata = [*(model.metadata or ()), entry]
    model.buffers[entry.buffer].data = np.frombuffer(value, np.uint8)
