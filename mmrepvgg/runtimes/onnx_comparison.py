"""The difference of two ONNX models that should compute the same."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator

from ..checkpoints.reading import CheckpointError
from ..measures.difference import Difference
from ..reparam.structure.onnx_values import list_inputs
from .onnx_inputs import ModelInputs, RunModel

# What they give jumps if their input changes a little; so what goes into them is compared.
_CHOOSING = {'NonMaxSuppression', 'TopK', 'ArgMax', 'ArgMin', 'NonZero', 'Unique'}
# They tell nothing of the numbers of a value.
_SHAPES = {'Shape', 'Size'}
# Operators that ONNX Runtime has, or may have.
_KNOWN_DOMAINS = {'', 'ai.onnx', 'ai.onnx.ml', 'com.microsoft'}


def find_compared(graph: onnx.GraphProto, changed: Collection[str]) -> list[str]:
    """The values that tell whether two models compute the same.

    They are the outputs; but if these lie behind an operator that chooses, such as NonMaxSuppression, or of a foreign
    domain, they are what goes into it. If a changed value lies behind it, too, they are the outputs nevertheless.

    Args:
        graph: The graph.
        changed: The values that are computed in another way.
    """
    outputs = [each.name for each in graph.output]
    departing, cut = set(changed), set[str]()
    compared: dict[str, None] = {}
    for node in graph.node:
        inputs = list_inputs(node)
        is_foreign = node.domain not in _KNOWN_DOMAINS
        if is_foreign or (node.op_type in _CHOOSING and departing.intersection(inputs)):
            compared.update(dict.fromkeys(name for name in inputs if name in departing and name not in cut))
            cut.update(node.output)
        elif cut.intersection(inputs):
            cut.update(node.output)
        if departing.intersection(inputs) and node.op_type not in _SHAPES:
            departing.update(node.output)
    compared.update(dict.fromkeys(name for name in outputs if name not in cut))
    return list(compared) if compared and not cut.intersection(changed) else outputs


def keep_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of a model that gives these values, and computes nothing else."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph, known = copied.graph, {each.name: each for each in model.graph.output}
    del graph.output[:]
    graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    needed = {each.name for each in graph.output}
    for place, node in reversed(list(enumerate(graph.node))):
        if needed.intersection(node.output):
            needed.update(list_inputs(node))
        else:
            del graph.node[place]
    return copied


def open_model(model: onnx.ModelProto | Path) -> RunModel:
    """A function that runs a model: by ONNX Runtime, or else by the reference implementation of ONNX.

    ONNX Runtime has no convolutions of float64 and bfloat16 numbers for CPUs.

    Raises:
        CheckpointError: If it can't be run.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, too
    # what the file says is computed, and nothing is joined
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content: Any = model if isinstance(model, Path) else model.SerializeToString()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its errors have no common class
        if 'NOT_IMPLEMENTED' not in str(error):
            raise CheckpointError(f'ONNX Runtime can not load the model: {" ".join(str(error).split())}') from error
        return _open_reference(model)
    names = [each.name for each in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


def _open_reference(model: onnx.ModelProto | Path) -> RunModel:
    evaluator = ReferenceEvaluator(str(model) if isinstance(model, Path) else model)
    return lambda inputs: dict(zip(evaluator.output_names, evaluator.run(None, inputs), strict=True))


class ValueDifference:
    """The largest difference of two models, value by value.

    Attributes:
        by_value: The difference of each value of floating-point numbers.
        num_inputs: Number of inputs.
    """

    def __init__(self) -> None:
        self.by_value: dict[str, Difference] = {}
        self.num_inputs = 0

    def add(self, expected: dict[str, Any], actual: dict[str, Any]) -> None:
        """Take in what both give for one input."""
        self.num_inputs += 1
        for name, value in expected.items():
            if not isinstance(value, np.ndarray) or value.dtype.kind not in 'fV' or not value.size:
                continue
            one, other = (np.asarray(each).astype(np.float64) for each in (value, actual[name]))
            difference = self.by_value.setdefault(name, Difference())
            if one.shape != other.shape:
                difference.largest = float('nan')
                continue
            # where both are infinite or no numbers they are equal
            same = ~np.isfinite(one) & ((one == other) | (np.isnan(one) & np.isnan(other)))
            if same.all():  # no number tells anything
                difference.largest = float('nan')
                continue
            difference.add(*(torch.from_numpy(each[~same]) for each in (one, other)))

    @property
    def relative(self) -> float:
        """The largest, relative to the largest number of its value. NaN if one of them is, or if there is none."""
        found = [each.relative for each in self.by_value.values()]
        return max(found, default=float('nan')) if all(each == each for each in found) else float('nan')


def compare_models(one: RunModel, other: RunModel, inputs: ModelInputs) -> ValueDifference:
    """Run two models on the same inputs.

    Raises:
        CheckpointError: If the first one takes none of the inputs.
    """
    difference = ValueDifference()
    for given, expected in inputs.iterate(one):
        difference.add(expected, other(given))
    return difference
