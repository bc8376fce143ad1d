"""A network trained on digits that is right about all its images, ways to spoil it for int8, and its int8 files."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import torch
from mmengine.config import Config
from onnx import numpy_helper
from tool_runs import SMALL
from torch import nn

from mmrepvgg import load_config
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.quantization.measuring import read_inputs
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.format import Format
from mmrepvgg.runtimes.metadata import ExportMetadata
from mmrepvgg.runtimes.prepared import normalise, prepare_model

CONVS = ['backbone.stem', *(f'backbone.stage_{stage}' for stage in ('1.0', '2.0', '3.0', '3.1', '4.0'))]
LAYERS = [*CONVS, 'head.fc']
NUM_TRAIN, NUM_TEST = 40, 90


def make_config(digits: Path, checkpoint: Path, folder: Path) -> Config:
    """The config of ``small.pth`` on some of the digits, labelled by the float32 model: it has an accuracy of 100%."""
    cfg = load_config(str(SMALL))
    model = load_classifier(cfg, checkpoint)
    for split, source, count in (('train', 'train', NUM_TRAIN), ('test', 'val', NUM_TEST)):
        root = digits / 'data/digits' / source
        files = sorted(root.glob('*/*.png'))
        files = [files[index] for index in np.random.default_rng(0).permutation(len(files))[:count]]
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.update(data_root='', data_prefix=str(root), ann_file=str(folder / f'{checkpoint.stem}_{split}.txt'))
        names = [str(file.relative_to(root)) for file in files]
        write_labels(dataset.ann_file, names, [0] * count)
        # in another order
        images = torch.cat([images for images, _ in iterate_samples(cfg, split)])
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        labels = torch.empty(count, dtype=torch.long)
        with torch.no_grad():
            labels[order] = model(normalise(model, images)).argmax(1)
        assert len(labels.unique()) > 3
        write_labels(dataset.ann_file, names, labels.tolist())
    return cfg


def read_network(digits: Path, folder: Path) -> SimpleNamespace:
    """The network, its images as inputs of files, and what float32 says about them."""
    checkpoint = digits / 'small.pth'
    cfg = make_config(digits, checkpoint, folder)
    prepared = prepare_model(
        cfg, checkpoint, input_size=None, batch_size=None, dynamic_size=False, precision='int8', with_preprocess=False,
        softmax=False, ema=False,
    )  # fmt: skip
    test = read_inputs(cfg, 'test', None, seed=0, prepared=prepared)
    x = torch.cat([torch.from_numpy(inputs) for inputs, _ in test])
    with torch.no_grad():
        scores = prepared.deployed(x)
    calibration = [inputs for inputs, _ in read_inputs(cfg, 'train', None, seed=0, prepared=prepared)]
    return SimpleNamespace(
        cfg=cfg, prepared=prepared, deployed=prepared.deployed, metadata=prepared.metadata, calibration=calibration,
        test=test, x=x, scores=scores,
    )  # fmt: skip


def write_labels(path: str, names: Sequence[str], labels: Sequence[int]) -> None:
    Path(path).write_text('\n'.join(f'{name} {label}' for name, label in zip(names, labels, strict=True)))


def spoil(deployed: nn.Module, layers: Iterable[str], factor: float) -> Any:
    """A deploy form in which each of these layers has a useless channel with a huge weight.

    Nothing comes of that channel: its bias keeps it from firing. But with one scale for the whole weight, that of the
    other channels becomes 0.
    """
    spoilt = copy.deepcopy(deployed)
    for layer in layers:
        module: Any = spoilt.get_submodule(f'{layer}.branch_reparam' if layer in CONVS else layer)
        module.weight.data[0] = module.weight.abs().max() * factor
        module.bias.data[0] = -1e5 * factor
    return spoilt


METADATA = ExportMetadata(
    arch='', classes=(), num_classes=10, channels=3, input_size=(32, 32), batch_size=None, mean=(), std=(), to_rgb=True,
    precision='int8', with_preprocess=False, softmax=False, source_sha256='', version='',
)  # fmt: skip


def write_float(row: Format, deployed: nn.Module, metadata: ExportMetadata, folder: Path) -> Path:
    path = folder / f'float{row.suffixes[0]}'
    row.write(copy.deepcopy(deployed), path, replace(metadata, precision='fp32', batch_size=None))
    return path


def read_scales(path: Path, position: int) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """Of each convolution of an ONNX file, scale and zero point of an input; None where that is float32."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    found = []
    for node in graph.node:
        if node.op_type == 'Conv':
            dequantize = producers.get(node.input[position])
            is_quantized = dequantize is not None and dequantize.op_type == 'DequantizeLinear'
            found.append(tuple(constants[name] for name in dequantize.input[1:]) if is_quantized else None)
    return found
