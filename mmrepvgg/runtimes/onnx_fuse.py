"""Fuse an ONNX file, and run both files to compare them."""

from collections.abc import Sequence
from pathlib import Path

import onnx

from .. import mmcv_installed  # noqa: F401
from ..checkpoints.reading import CheckpointError
from ..reparam.report import Fused, SwitchReport
from ..reparam.structure.onnx_fusing import ModelFusion, count_nodes, fuse_model, get_opset
from ..reparam.structure.onnx_values import ValueTypes
from .export import DEFAULT_TOLERANCES
from .fuse import OnnxFusion
from .network import ExportError
from .onnx_comparison import ValueDifference, compare_models, find_compared, keep_outputs, open_model
from .onnx_inputs import ModelInputs
from .onnx_models import fits_into_file, read_onnx, writing_onnx

# Before this version operators spread constants in another way, and norms have other attributes.
MIN_OPSET = 7
_CONVS = ('Conv', 'ConvTranspose')
_PRECISIONS = {'float16': 'fp16', 'bfloat16': 'bf16'}
# Of how many nodes the outputs are kept at once, to find the first that departs.
_NUM_AT_ONCE = 8
# They give other numbers each time.
_RANDOM = {'RandomNormal', 'RandomNormalLike', 'RandomUniform', 'RandomUniformLike', 'Bernoulli', 'Multinomial'}


def fuse_file(
    source: Path,
    destination: Path,
    data: str | Path | None,
    input_size: Sequence[int] | None,
    tolerance: float | None,
) -> OnnxFusion:
    """See :func:`mmrepvgg.fuse_onnx`."""
    model = read_onnx(source)
    opset = get_opset(model)
    if opset < MIN_OPSET:
        raise CheckpointError(
            f'{source} has version {opset} of the ONNX operators, and {MIN_OPSET} is the oldest that can be fused; '
            'export it again, or convert it with onnx.version_converter'
        )
    inputs = ModelInputs(model.graph, input_size, data)
    num_convs, num_nodes = count_nodes(model, *_CONVS), count_nodes(model)
    original = None
    if fits_into_file(model):
        original = onnx.ModelProto()
        original.CopyFrom(model)
    fusion = fuse_model(model, ValueTypes(model))
    allowed = _find_tolerance(fusion) if tolerance is None else tolerance
    with writing_onnx(model, destination) as written:
        if original is None:
            difference = compare_models(open_model(source), open_model(written), inputs)
        else:
            names = find_compared(model.graph, [each.value for each in fusion.fused])
            difference = _compare(original, model, inputs, names)
        if not difference.relative <= allowed:  # true for NaN, too
            place = '' if original is None else _find_departing(original, model, fusion, inputs, allowed)
            raise ExportError(
                f'the fused model differs from {source} by {difference.relative:.2e} of the largest output, more than '
                f'the tolerance of {allowed:.0e}{place}; nothing was written. Allow more with `tolerance`, or compare '
                'on images with `data`'
            )
    report = SwitchReport(
        tuple(Fused(each.name, each.nodes, each.becomes) for each in fusion.fused),
        fusion.branches,
        fusion.left,
        {},
        count_nodes(model, 'BatchNormalization'),
        (num_convs, count_nodes(model, *_CONVS)),
        difference.relative,
    )
    return OnnxFusion(report, difference.num_inputs, (num_nodes, count_nodes(model)))


def _find_tolerance(fusion: ModelFusion) -> float:
    """That of the least precise type of the new weights."""
    return max((DEFAULT_TOLERANCES[_PRECISIONS.get(str(dtype), 'fp32')] for dtype in fusion.dtypes), default=1e-4)


def _compare(
    original: onnx.ModelProto, model: onnx.ModelProto, inputs: ModelInputs, names: Sequence[str]
) -> ValueDifference:
    one, other = (open_model(keep_outputs(each, names)) for each in (original, model))
    return compare_models(one, other, inputs)


def _find_departing(
    original: onnx.ModelProto, model: onnx.ModelProto, fusion: ModelFusion, inputs: ModelInputs, allowed: float
) -> str:
    """Which node is the first that departs, and what may be the reason, in words."""
    if found := sorted({node.op_type for node in original.graph.node} & _RANDOM):
        return f' (it has {", ".join(found)}, which give other numbers each time)'
    given = {name for node in model.graph.node for name in node.output}
    fused = [each for each in fusion.fused if each.value in given]
    places = {name: place for place, node in enumerate(model.graph.node) for name in node.output}
    fused.sort(key=lambda each: places[each.value])
    for start in range(0, len(fused), _NUM_AT_ONCE):
        some = fused[start : start + _NUM_AT_ONCE]
        differences = _compare(original, model, inputs, [each.value for each in some]).by_value
        for each in some:
            if differences[each.value].exceeds(allowed):
                return f'; {each.name} is the first node that departs'
    return ''
