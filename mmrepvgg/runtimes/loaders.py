"""Exported files as modules: each runtime behind one forward."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from ..checkpoints.archives import check_pt2
from ..checkpoints.reading import CheckpointError, hash_file
from ..models.building import build_model
from .cpu import has_vnni
from .formats import EXPORTED_SUFFIXES, find_format, require_packages
from .metadata import ENTRY, ExportMetadata
from .network import DeployedNetwork
from .openvino_core import get_core, import_openvino
from .writers import SAFE_TYPES, find_types

# how save_openvino says in the .xml which .bin is its own
_WEIGHTS = re.compile(rb'<weights_sha256 value="([0-9a-f]{64})"')

__all__ = ['EXPORTED_SUFFIXES', 'ExportedModel', 'load_exported']

# Normalised (or uint8) images of exactly one batch that the file takes -> its scores.
Run = Callable[[Tensor], Tensor]


class ExportedModel(nn.Module):
    """An exported file, ready to run.

    Attributes:
        metadata (ExportMetadata): What the file says about itself.
        computes_in (str): The precision in which it is computed here. OpenVINO stores float16 and computes in float32
            on CPUs, and takes float32 for bfloat16 where the CPU has no instructions for that.
    """

    def __init__(self, path: Path, run: Run, metadata: ExportMetadata, any_size: bool = False, computes_in: str = ''):
        super().__init__()
        self.path = path
        self.metadata = metadata
        self.computes_in = computes_in or metadata.precision
        self._run = run  # a module among them is registered, and moves with this one
        self._any_size = any_size
        self.training = False

    def train(self, mode: bool = True) -> 'ExportedModel':
        """Nothing to switch: a file was exported for inference, and torch.export's modules refuse to be asked."""
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Run the file.

        Args:
            x: ``(N, 3, H, W)``, any N: what a file of a fixed batch size lacks is padded, and cut off the result.
                Normalised float32; for a file with preprocessing inside the images as the pipeline gives them,
                uint8 values in any dtype.

        Returns:
            Logits ``(N, classes)``, float32; probabilities if ``metadata.softmax``.

        Raises:
            ValueError: If the shape is not the file's.
        """
        expected = (self.metadata.channels, *self.metadata.input_size)
        if x.ndim != 4 or (tuple(x.shape[1:]) != expected and not (self._any_size and x.shape[1] == expected[0])):
            raise ValueError(
                f'{self.path} takes images of the shape (N, {", ".join(map(str, expected))}), got {tuple(x.shape)}; '
                'use a config whose test pipeline gives that size, or export with --input-size'
            )
        x = x.to(torch.uint8 if self.metadata.with_preprocess else torch.float32)
        size = self.metadata.batch_size
        if size is None or len(x) == size:
            return self._run(x)
        if not len(x):
            return x.new_zeros(0, self.metadata.num_classes, dtype=torch.float32)
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % size))
        return torch.cat([self._run(chunk) for chunk in padded.split(size)])[: len(x)]


def load_exported(path: str | Path, *, num_threads: int | None = None) -> ExportedModel:
    """Load a file that tools/export.py wrote.

    Files of torch.export and TorchScript are programs: load only those that you trust.

    Args:
        path: Ends in one of :data:`EXPORTED_SUFFIXES`.
        num_threads: CPU threads; the runtime's default if None. PyTorch's are those of the whole process.

    Raises:
        ValueError: If the ending is unknown, or the file holds no metadata.
        FileNotFoundError: If there is no such file.
        MissingPackageError: If the runtime is not installed; names the extra that has it.
        CheckpointError: If the file is damaged.
    """
    path = Path(path)
    row = find_format(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist' if not path.exists() else f'{path} is not a file')
    require_packages(row, write=False)
    if num_threads is not None and num_threads < 1:
        raise ValueError(f'num_threads must be positive, got {num_threads}')
    return _LOADERS[row.name](path, num_threads)


def _load_onnx(path: Path, num_threads: int | None) -> ExportedModel:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # int8: without VNNI instructions its fastest kernels saturate, and give other results than elsewhere; with them
    # they are exact, and 3 to 4 times as fast as those of this option
    options.add_session_config_entry('session.x64quantprecision', '0' if has_vnni() else '1')
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its own errors have no common class
        raise CheckpointError(f'ONNX Runtime can not load {path}: {error}') from error
    metadata = ExportMetadata.from_json(session.get_modelmeta().custom_metadata_map.get(ENTRY), path)
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.cpu().numpy()})[0]).to(x.device)

    return ExportedModel(path, run, metadata)


def _load_openvino(path: Path, num_threads: int | None) -> ExportedModel:
    openvino = import_openvino()
    weights = path.with_suffix('.bin')
    if not weights.is_file():
        raise FileNotFoundError(f'{weights} does not exist; an OpenVINO model is two files, {path.name} and it')
    # before it is read: of a foreign .bin OpenVINO's messages tell nothing
    if (match := _WEIGHTS.search(path.read_bytes())) and match[1].decode() != hash_file(weights):
        raise CheckpointError(f'{weights} is not the one that was written with {path}; export again')
    core = get_core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise CheckpointError(f'OpenVINO can not load {path}: {error}') from error
    has_record = model.has_rt_info([ENTRY, 'metadata'])
    record = model.get_rt_info([ENTRY, 'metadata']).astype(str) if has_record else None
    metadata = ExportMetadata.from_json(record, path)
    if match is None:
        raise CheckpointError(f'{path} does not say to which .bin it belongs; export again')
    # without the hint a CPU with bfloat16 instructions uses them in any model
    hints: dict[str, Any] = {
        'INFERENCE_PRECISION_HINT': 'bf16' if metadata.precision == 'bf16' else 'f32',
        'PERFORMANCE_HINT': 'LATENCY',
    }
    if num_threads is not None:
        hints['INFERENCE_NUM_THREADS'] = num_threads
    compiled = core.compile_model(model, 'CPU', hints)
    is_bf16 = compiled.get_property('INFERENCE_PRECISION_HINT') == openvino.Type.bf16
    request = compiled.create_infer_request()

    def run(x: Tensor) -> Tensor:
        # the output is the request's own memory, and the next call's
        scores = request.infer({0: x.cpu().contiguous().numpy()}, share_inputs=True)[0]
        return torch.from_numpy(scores.copy()).to(x.device)

    computes_in = 'int8' if metadata.precision == 'int8' else 'bf16' if is_bf16 else 'fp32'
    return ExportedModel(path, run, metadata, computes_in=computes_in)


def _load_torch_export(path: Path, num_threads: int | None) -> ExportedModel:
    _set_threads(num_threads)
    check_pt2(path)
    extra = {f'{ENTRY}.json': ''}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # of any class
        raise CheckpointError(f'{path} is damaged, or of another version of torch: {error}') from error
    return ExportedModel(path, program.module(), ExportMetadata.from_json(extra[f'{ENTRY}.json'], path))


def _load_torchscript(path: Path, num_threads: int | None) -> ExportedModel:
    _set_threads(num_threads)
    extra = {f'{ENTRY}.json': ''}
    try:
        module = torch.jit.load(path, map_location='cpu', _extra_files=extra)
    except RuntimeError as error:
        raise CheckpointError(f'{path} is no TorchScript file, or damaged: {str(error).splitlines()[0]}') from error
    text = extra[f'{ENTRY}.json']
    return ExportedModel(path, module.eval(), ExportMetadata.from_json(text, path))


def _load_safetensors(path: Path, num_threads: int | None) -> ExportedModel:
    import safetensors
    import safetensors.torch

    _set_threads(num_threads)
    try:
        with safetensors.safe_open(path, 'pt') as file:
            record = file.metadata() or {}
        weights = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f'{path} is damaged or incomplete: {error}') from error
    metadata = ExportMetadata.from_json(record.get(ENTRY), path)
    model_cfg = json.loads(record.get(f'{ENTRY}_model', '{}'))
    # a registry imports and builds what it is asked for: ask for nothing that a file could make up
    if not model_cfg or (unknown := sorted(set(find_types(model_cfg)) - SAFE_TYPES)):
        raise CheckpointError(f'{path} must describe a classifier of this project, got {unknown if model_cfg else ""}')
    model = build_model(Config(dict(model=model_cfg, default_scope='mmrepvgg')), deploy=True)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f'the weights in {path} are not those of the model it describes: {error}') from error
    return ExportedModel(path, DeployedNetwork(model, metadata.precision).eval(), metadata, any_size=True)


def _set_threads(num_threads: int | None) -> None:
    if num_threads is not None:
        torch.set_num_threads(num_threads)


_LOADERS: dict[str, Callable[[Path, int | None], ExportedModel]] = {
    'ONNX': _load_onnx,
    'OpenVINO': _load_openvino,
    'torch.export': _load_torch_export,
    'TorchScript': _load_torchscript,
    'safetensors': _load_safetensors,
}
