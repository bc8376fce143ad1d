"""One function for each format, from a network to a file. The runtimes that read them are in runtimes.py."""

import contextlib
import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.reading import hash_file
from .metadata import ENTRY, ExportMetadata
from .network import DTYPES, ExportError
from .openvino_core import import_openvino
from .opsets import MIN_EXPORTED, lower_opset


def write_onnx(network: nn.Module, path: Path, example: Tensor, metadata: ExportMetadata, opset: int | None) -> None:
    """Write ``network`` as one ONNX file, weights and metadata inside.

    Raises:
        ExportError: If the network can't be written with this opset.
    """
    dynamic = {0: torch.export.Dim.DYNAMIC} if metadata.batch_size is None else None
    with quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=['images'],
            output_names=['scores'],
            dynamic_shapes=(dynamic,),
            opset_version=None if opset is None else max(opset, MIN_EXPORTED),
            verbose=False,
        )
    assert program is not None
    written = program.model.opset_imports['']
    if opset is not None and written != max(opset, MIN_EXPORTED):
        raise ExportError(f'opset must be one that the installed exporter can write, got {opset}; it gave {written}')
    for node in program.model.graph:
        node.metadata_props.clear()  # where in the source it comes from, with the paths of this machine
    if opset is not None and opset < MIN_EXPORTED:
        model = lower_opset(program.model_proto, opset)
        model.metadata_props.add(key=ENTRY, value=metadata.to_json())
        path.write_bytes(model.SerializeToString())
        return
    program.model.metadata_props[ENTRY] = metadata.to_json()
    # protobuf ends at 2 GB, which no arch reaches: one file, no weights beside it
    program.save(path, external_data=False)


def write_openvino(network: nn.Module, path: Path, example: Tensor, metadata: ExportMetadata) -> None:
    """Write ``network`` as ``path`` (.xml) and the .bin beside it; the .xml has the .bin's SHA-256.

    Half precision is that of the weights in the file; bfloat16 is what the runtime is told to compute in.
    """
    openvino = import_openvino()
    shape = openvino.PartialShape([metadata.batch_size or -1, *example.shape[1:]])
    with quiet():
        model = openvino.convert_model(network, example_input=example, input=[shape])
    save_openvino(model, path, metadata)


def save_openvino(model: Any, path: Path, metadata: ExportMetadata) -> None:
    """Write a model of OpenVINO with its metadata as ``path`` (.xml) and the .bin beside it."""
    openvino = import_openvino()
    model.inputs[0].tensor.set_names({'images'})
    model.outputs[0].tensor.set_names({'scores'})
    compress = metadata.precision == 'fp16'
    model.set_rt_info(metadata.to_json(), [ENTRY, 'metadata'])
    openvino.save_model(model, path, compress_to_fp16=compress)
    # the two files are replaced one after the other: the reader must see if they are not a pair
    model.set_rt_info(hash_file(path.with_suffix('.bin')), [ENTRY, 'weights_sha256'])
    openvino.save_model(model, path, compress_to_fp16=compress)


def write_torch_export(network: nn.Module, path: Path, example: Tensor, metadata: ExportMetadata) -> None:
    """Write ``network`` as a file of ``torch.export.save``."""
    dynamic = {0: torch.export.Dim.DYNAMIC} if metadata.batch_size is None else None
    with quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=(dynamic,))
        # the example would be written, too
        program.example_inputs = None
        for node in program.graph.nodes:
            node.meta.pop('stack_trace', None)  # paths of this machine
        torch.export.save(program, path, extra_files={f'{ENTRY}.json': metadata.to_json()})


def write_torchscript(network: nn.Module, path: Path, example: Tensor, metadata: ExportMetadata) -> None:
    """Write ``network`` as a TorchScript file."""
    with quiet():
        traced = torch.jit.trace(network, example, check_trace=False)
        traced.save(str(path), _extra_files={f'{ENTRY}.json': metadata.to_json()})


# What a safetensors file may ask to be built, and which of its settings say nothing about inference.
SAFE_TYPES = {
    *('ImageClassifier', 'RepVGG', 'GlobalAveragePooling', 'LinearClsHead', 'AuxiliaryClsHead'),
    *('BN', 'BN2d', 'SyncBN', 'MMSyncBN', 'Conv2d', 'ReLU', 'ReLU6', 'SiLU', 'Swish', 'HSwish', 'GELU', 'LeakyReLU'),
    *('Sigmoid', 'HSigmoid'),
}
_TRAINING_ONLY = ('init_cfg', 'loss', 'train_cfg', 'data_preprocessor', 'pretrained', 'aux_loss_weight')


def write_safetensors(model: nn.Module, path: Path, metadata: ExportMetadata, model_cfg: Any) -> None:
    """Write the weights of ``model``, a classifier in deploy form, and the config from which to build it again.

    Raises:
        ExportError: If the model has parts other than those of this project's configs.
    """
    import safetensors.torch

    slim = _drop_training(model_cfg)
    if unknown := sorted(set(find_types(slim)) - SAFE_TYPES):
        raise ExportError(
            f'a safetensors file can describe models of {", ".join(sorted(SAFE_TYPES))}, got {", ".join(unknown)}; '
            'export to another format'
        )
    weights = {key: value.to(DTYPES[metadata.precision]).contiguous() for key, value in model.state_dict().items()}
    record = {'format': 'pt', ENTRY: metadata.to_json(), f'{ENTRY}_model': json.dumps(slim)}
    # not save_file, whose files nobody but their owner may read
    path.write_bytes(safetensors.torch.save(weights, record))


def find_types(node: Any) -> Iterator[str]:
    """Every ``type`` in a config, without mmpretrain's or this project's scope in front."""
    if isinstance(node, dict):
        if 'type' in node:
            yield str(node['type']).removeprefix('mmrepvgg.').removeprefix('mmpretrain.')
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from find_types(value)


def _drop_training(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _drop_training(value) for key, value in node.items() if key not in _TRAINING_ONLY}
    return [_drop_training(value) for value in node] if isinstance(node, list | tuple) else copy.copy(node)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters tell of their own workings at length; errors come as exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, 'w') as sink, contextlib.redirect_stdout(sink):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(previous)
