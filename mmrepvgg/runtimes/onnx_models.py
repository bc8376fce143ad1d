"""ONNX models of any origin: read with all their weights, and written in one file if they fit into one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model

from ..checkpoints.reading import CheckpointError
from ..checkpoints.seals import OPEN_SEAL, SEAL_ENTRY, check_seal, close_seal
from ..checkpoints.writing import replacing
from ..reparam.structure.onnx_values import iterate_graphs

# protobuf's limit for a file, less what is not in the numbers of the tensors
LARGEST_FILE = 2_000_000_000


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read a model. Its functions are written out where they are called.

    Raises:
        CheckpointError: If it is no ONNX model, is damaged, or lacks weights that are in other files.
    """
    content = path.read_bytes()
    if SEAL_ENTRY.encode() in content and not check_seal(content):
        raise CheckpointError(f'{path} is damaged: its content does not have the SHA-256 in it; export again')
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise CheckpointError(f'{path} is not an ONNX file, or it is cut off; export it again') from None
    if not model.ir_version or not model.graph.node:
        raise CheckpointError(f'{path} is not an ONNX file, or there is nothing in it; export it again')
    try:
        onnx.checker.check_model(str(path))
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        load_external_data_for_model(model, str(path.resolve().parent))
    except Exception as error:  # the errors of onnx have no common class
        raise CheckpointError(f'{path} is not a whole ONNX model: {_explain(error)}') from error
    return model


def _explain(error: Exception) -> str:
    text = ' '.join(str(error).split('==>')[0].split())
    if 'should be stored in' in text or 'external data' in text.lower():
        return f'a part of its weights is in another file, which must lie beside it ({text[:300]})'
    return text[:300]


def fits_into_file(model: onnx.ModelProto) -> bool:
    """Whether the weights of a model can be in the same file: protobuf can't write more than 2 GB."""
    tensors = (tensor for graph in iterate_graphs(model.graph) for tensor in graph.initializer)
    return sum(len(each.raw_data) + 4 * len(each.float_data) for each in tensors) < LARGEST_FILE


@contextmanager
def writing_onnx(model: onnx.ModelProto, path: Path) -> Iterator[Path]:
    """Write a model beside ``path``, and yield the name of it, which takes that place if the block ends without error.

    A model of more than 2 GB has its weights in a second file, ``<path>.data``. The hash in a file of this project is
    written anew.
    """
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        if fits_into_file(model):
            temporary.write_bytes(_serialize(model))
            onnx.checker.check_model(str(temporary))
            yield temporary
            return
        data = stack.enter_context(replacing(path.with_name(f'{path.name}.data')))
        _clear_seal(model)
        onnx.save_model(model, temporary, save_as_external_data=True, location=data.name, size_threshold=1024)
        onnx.checker.check_model(str(temporary))
        yield temporary
        _name_data(temporary, f'{path.name}.data')


def _serialize(model: onnx.ModelProto) -> bytes:
    entry = next((each for each in model.metadata_props if each.key == SEAL_ENTRY), None)
    if entry is None:
        return model.SerializeToString()
    entry.value = OPEN_SEAL
    return close_seal(model.SerializeToString())


def _clear_seal(model: onnx.ModelProto) -> None:
    for place, entry in reversed(list(enumerate(model.metadata_props))):
        if entry.key == SEAL_ENTRY:
            del model.metadata_props[place]


def _name_data(path: Path, name: str) -> None:
    """Change the name of the file with the weights."""
    model = onnx.load(path, load_external_data=False)
    for graph in iterate_graphs(model.graph):
        for entry in (entry for tensor in graph.initializer for entry in tensor.external_data):
            if entry.key == 'location':
                entry.value = name
    path.write_bytes(model.SerializeToString())
