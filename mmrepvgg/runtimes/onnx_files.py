"""ONNX's files: their hash, and what in them a plain network never has. Imports no onnx."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.protobuf import iterate_fields
from ..checkpoints.seals import OPEN_SEAL, SEAL_ENTRY, check_seal, close_seal
from .format import ENTRY

if TYPE_CHECKING:
    from .metadata import ExportMetadata

# Fields of the messages in a file, by their numbers (onnx/onnx.proto): how deep they lie, and what they are.
_GRAPH, _FUNCTIONS = 7, 25  # of a model
_NODES, _INITIALIZERS = 1, 5  # of a graph
_FUNCTION_NODES = 7
_ATTRIBUTES = 5  # of a node
_SUBGRAPHS = (6, 11)  # of an attribute
_EXTERNAL_DATA = 13  # of a tensor


def save_proto(model: Any, path: Path, metadata: 'ExportMetadata') -> None:
    """Write an ``onnx.ModelProto`` with its metadata and the hash of the file. The model is changed."""
    entries = {ENTRY: metadata.to_json(), SEAL_ENTRY: OPEN_SEAL}
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key not in entries]
    del model.metadata_props[:]
    for key, value in (*kept, *entries.items()):
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(close_seal(model.SerializeToString()))


def check_onnx(path: Path) -> None:
    """Check a file before ONNX Runtime reads it.

    A file without a hash, of others or changed by other tools, may be damaged without a sign.

    Raises:
        CheckpointError: If it is damaged, if it has loops or branches, which could take forever, or if its weights are
            in other files.
    """
    from ..checkpoints.reading import CheckpointError, as_checkpoint_errors

    content = path.read_bytes()
    if SEAL_ENTRY.encode() in content and not check_seal(content):
        raise CheckpointError(
            f'{path} is damaged, or was changed after it was written: its content does not have the SHA-256 in it; '
            f'export again, or remove its entry {SEAL_ENTRY} if another tool changed it'
        )
    with as_checkpoint_errors(path):
        _check_model(memoryview(content), path)


def _check_model(content: memoryview, path: Path) -> None:
    from ..checkpoints.reading import CheckpointError

    def walk(message: Any, *steps: tuple[int, ...]) -> Any:
        """The fields at the end of a path of field numbers."""
        numbers, *rest = steps
        for number, value in iterate_fields(message):
            if number in numbers:
                if rest and isinstance(value, memoryview):
                    yield from walk(value, *rest)
                else:
                    yield value

    for steps in (((_GRAPH,), (_NODES,)), ((_FUNCTIONS,), (_FUNCTION_NODES,))):
        if any(True for _ in walk(content, *steps, (_ATTRIBUTES,), _SUBGRAPHS)):
            raise CheckpointError(f'{path} has loops or branches, which no plain network has, and may never end')
    if any(True for _ in walk(content, (_GRAPH,), (_INITIALIZERS,), (_EXTERNAL_DATA,))):
        raise CheckpointError(f'{path} has its weights in other files, which are not read; put them into one file')
