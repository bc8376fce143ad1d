"""ONNX files that were exported with their branches and norms: fused, run, compared and written."""

import io
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import PAD, Builder, branches, count, list_kinds, run
from timm.models.byobnet import ByoBlockCfg, ByobNet, model_cfgs
from tool_runs import fail_here, run_python, succeed_here

from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.reparam.structure import onnx_rewriting
from mmrepvgg.runtimes import onnx_models
from mmrepvgg.runtimes.fuse import fuse_onnx
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.network import ExportError, wrap_network
from mmrepvgg.runtimes.onnx_files import save_proto
from mmrepvgg.runtimes.prepared import prepare_model


def save(path, model):
    onnx.save(model, path)
    return path


def make_block(dtype=np.float32, shape=('N', 4, 'H', 'W')):
    b = Builder(dtype=dtype)
    return b.model(b.node('Relu', branches(b)), shape, opset=22, ir_version=10)


@pytest.fixture(scope='module')
def block(tmp_path_factory):
    return save(tmp_path_factory.mktemp('block') / 'block.onnx', make_block())


def test_the_command(block, tmp_path):
    out = succeed_here('fuse', block, 'out/fused.onnx', '--report', 'report.json', cwd=tmp_path)
    assert '0 parallel linear branches left' in out
    assert '7 layers became 1; convolutions: 2 -> 1' in out
    assert out.splitlines()[-1] == 'out/fused.onnx: 8 -> 2 nodes; compared on 2 input(s)'
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['fused'][0]['becomes'] == 'Conv 3x3'
    assert report['num_branches_left'] == 0
    assert report['num_convs'] == [2, 1]
    assert report['difference'] < 1e-6
    assert (tmp_path / 'out/fused.onnx').stat().st_size < block.stat().st_size
    onnx.checker.check_model(tmp_path / 'out/fused.onnx', full_check=True)
    # a file without anything to fuse is written as it is
    succeed_here('fuse', 'out/fused.onnx', 'again.onnx', cwd=tmp_path)
    assert onnx.load(tmp_path / 'again.onnx') == onnx.load(tmp_path / 'out/fused.onnx')


def test_errors_of_the_command(block, tmp_path):
    content = block.read_bytes()
    (tmp_path / 'copy.onnx').write_bytes(content)
    (tmp_path / 'cut.onnx').write_bytes(content[:200])
    (tmp_path / 'text.onnx').write_text('no model')
    (tmp_path / 'empty.onnx').write_bytes(b'')
    for source, destination, text in (
        ('none.onnx', 'new.onnx', 'none.onnx does not exist'),
        ('copy.onnx', 'copy.onnx', 'dst must be another file than src, got copy.onnx for both'),
        ('cut.onnx', 'new.onnx', 'cut.onnx is not'),
        ('text.onnx', 'new.onnx', 'text.onnx is not an ONNX file'),
        ('empty.onnx', 'new.onnx', 'empty.onnx is not an ONNX file'),
    ):
        assert text in fail_here('fuse', source, destination, cwd=tmp_path)
    for tolerance in ('1e-30',):
        line = fail_here('fuse', 'copy.onnx', 'new.onnx', '--tolerance', tolerance, cwd=tmp_path)
        assert 'more than the tolerance of 1e-30' in line
        assert 'Conv2 is the first node that departs' in line
        assert 'with --tolerance' in line
    assert {path.name for path in tmp_path.iterdir()} == {'copy.onnx', 'cut.onnx', 'text.onnx', 'empty.onnx'}
    assert (tmp_path / 'copy.onnx').read_bytes() == content


def test_wrong_numbers_are_never_written(block, tmp_path, monkeypatch):
    """The comparison is of what is written: a fault in the algebra does not get through."""
    right = onnx_rewriting.compute_map

    def wrong(*args):
        found = right(*args)
        found.weight[0, 0, 0, 0] += 1e-2
        return found

    monkeypatch.setattr(onnx_rewriting, 'compute_map', wrong)
    (tmp_path / 'fused.onnx').write_bytes(b'before')
    with pytest.raises(ExportError, match='differs from .* Conv2 is the first node that departs; nothing was written'):
        fuse_onnx(block, tmp_path / 'fused.onnx')
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'before']


def test_weights_in_other_files(tmp_path):
    model, source = make_block(), tmp_path / 'source'
    source.mkdir()
    onnx.save(model, source / 'a.onnx', save_as_external_data=True, location='a.data', size_threshold=0)
    fuse_onnx(source / 'a.onnx', tmp_path / 'fused.onnx')
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['fused.onnx']
    (source / 'a.data').unlink()
    with pytest.raises(CheckpointError, match='a part of its weights is in another file, which must lie beside it'):
        fuse_onnx(source / 'a.onnx', tmp_path / 'other.onnx')
    assert not (tmp_path / 'other.onnx').exists()


def test_models_too_large_for_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_models, 'LARGEST_FILE', 100)
    b = Builder(dtype=np.float32)
    y = b.norm(b.conv('x', 4, 64, 3, 3), 64)
    onnx.save(b.model(y), tmp_path / 'a.onnx', save_as_external_data=True, location='a.data', size_threshold=0)
    result = fuse_onnx(tmp_path / 'a.onnx', tmp_path / 'b.onnx')
    assert result.report.difference < 1e-6
    assert len(result.report.fused) == 1
    assert {path.name for path in tmp_path.iterdir()} == {'a.onnx', 'a.data', 'b.onnx', 'b.onnx.data'}
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    one, other = (run(onnx.load(tmp_path / name), x=x)[0] for name in ('a.onnx', 'b.onnx'))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype', [np.float16, np.float64, ml_dtypes.bfloat16])
def test_precisions(tmp_path, dtype):
    result = fuse_onnx(save(tmp_path / 'a.onnx', make_block(dtype)), tmp_path / 'b.onnx')
    fused = onnx.load(tmp_path / 'b.onnx')
    assert all(numpy_helper.to_array(each).dtype == dtype for each in fused.graph.initializer)
    assert len(result.report.fused) == 1
    assert result.report.difference < {np.float64: 1e-14}.get(dtype, 5e-2)


def test_functions(tmp_path):
    """Exporters may write a module as a function."""
    b = Builder(dtype=np.float32)
    nodes = [
        helper.make_node('Conv', ['a', 'w'], ['c'], 'conv', pads=[1, 1, 1, 1]),
        helper.make_node('BatchNormalization', ['c', 's', 't', 'm', 'v'], ['d'], 'norm'),
    ]
    function = helper.make_function('own', 'Block', [*'awstmv'], ['d'], nodes, [helper.make_opsetid('', 18)])
    y = b.node('Block', 'x', b.random(4, 4, 3, 3), *(b.random(4) for _ in range(3)), b.tensor(np.ones(4)), domain='own')
    model = b.model(y, functions=[function], opsets=[helper.make_opsetid('own', 1)])
    model.metadata_props.add(key='author', value='somebody')
    fuse_onnx(save(tmp_path / 'a.onnx', model), tmp_path / 'b.onnx')
    fused = onnx.load(tmp_path / 'b.onnx')
    assert list_kinds(fused) == ['Conv']
    assert not fused.functions
    assert [(each.key, each.value) for each in fused.metadata_props] == [('author', 'somebody')]


def test_quantized_models_stay(tmp_path):
    b = Builder(dtype=np.float32)
    scale, zero = b.tensor(0.05), b.tensor(np.int8(0))
    for_weight = b.tensor(np.ones((4, 4, 3, 3), np.int8))
    y = b.node('DequantizeLinear', b.node('QuantizeLinear', 'x', scale, zero), scale, zero)
    y = b.node('Conv', y, b.node('DequantizeLinear', for_weight, scale, zero), **PAD)
    y = b.node('DequantizeLinear', b.node('QuantizeLinear', y, scale, zero), scale, zero)
    y = b.norm(b.conv(b.norm(y, 4), 4, 4, 3, 3), 4)
    result = fuse_onnx(save(tmp_path / 'a.onnx', b.model(y)), tmp_path / 'b.onnx')
    kinds = list_kinds(onnx.load(tmp_path / 'b.onnx'))
    assert kinds.count('QuantizeLinear') == 2
    assert kinds.count('DequantizeLinear') == 3
    assert kinds[-1] == 'Conv'
    assert 'stored in a quantized form' in ' '.join(result.report.left.values())


def test_what_chooses_is_compared_before_it_does(tmp_path):
    """TopK of nearly equal numbers gives others after rounding, and other domains' operators can't be run."""
    for kind in ('TopK', 'Foreign'):
        b = Builder(dtype=np.float32)
        y = b.node('Mul', branches(b), b.tensor(1e-30))
        y = b.node('Add', y, b.tensor(1.0)) if kind == 'TopK' else y
        more = dict(axis=1) if kind == 'TopK' else dict(domain='foreign')
        inputs = [y, b.tensor([2])] if kind == 'TopK' else [y]
        b.node(kind, *inputs, outputs=['values', 'places'], **more)
        opsets = [helper.make_opsetid('foreign', 1)]
        result = fuse_onnx(save(tmp_path / 'a.onnx', b.model('values', opsets=opsets)), tmp_path / 'b.onnx')
        assert len(result.report.fused) == 1
        assert kind in list_kinds(onnx.load(tmp_path / 'b.onnx'))


def test_random_outputs_are_named(tmp_path):
    b = Builder(dtype=np.float32)
    y = branches(b)
    model = b.model(b.node('Add', y, b.node('RandomNormalLike', y)))
    with pytest.raises(ExportError, match='it has RandomNormalLike, which give other numbers each time'):
        fuse_onnx(save(tmp_path / 'a.onnx', model), tmp_path / 'b.onnx')


def test_sizes_of_inputs(tmp_path):
    b = Builder(dtype=np.float32)
    y = b.node('Flatten', branches(b))
    y = b.node('Gemm', y, b.random(4 * 48 * 40, 3))
    source = save(tmp_path / 'a.onnx', b.model(y, rank=2))
    with pytest.raises(CheckpointError, match='images of a certain size only, give it by `input_size`'):
        fuse_onnx(source, tmp_path / 'b.onnx')
    assert fuse_onnx(source, tmp_path / 'b.onnx', input_size=(48, 40)).num_inputs == 2
    # several inputs, one of them a number of pixels
    b = Builder(dtype=np.float32)
    info = helper.make_tensor_value_info('size', TensorProto.INT64, ['N', 2])
    y = b.node(
        'Div',
        b.node('ReduceMean', branches(b), b.tensor([2, 3]), keepdims=0),
        b.node('ReduceMax', b.node('Cast', 'size', to=1), keepdims=0),
    )
    assert fuse_onnx(save(tmp_path / 'a.onnx', b.model(y, inputs=[info], rank=2)), tmp_path / 'b.onnx').num_inputs == 2


def test_images_instead_of_noise(digit_images, tmp_path):
    for shape in (('N', 3, 'H', 'W'), (2, 3, 32, 40), ('N', 1, 16, 16)):
        b = Builder(dtype=np.float32)
        y = b.norm(b.conv('x', shape[1], 4, 3, 3), 4)
        source = save(tmp_path / 'a.onnx', b.model(y, shape))
        (image, *_) = sorted(digit_images.rglob('*.png'))
        for data, number in ((image, 1), (image.parent, 8)):
            assert fuse_onnx(source, tmp_path / 'b.onnx', data=data).num_inputs == number
    b = Builder(dtype=np.float32)
    source = save(tmp_path / 'a.onnx', b.model(b.norm(b.node('Gemm', 'x', b.random(4, 5)), 5), ('N', 4)))
    with pytest.raises(ValueError, match='`data` goes with a model that has one input .* this one has 0'):
        fuse_onnx(source, tmp_path / 'b.onnx', data=image)


def test_old_operators_are_refused(tmp_path):
    b = Builder(dtype=np.float32)
    source = save(tmp_path / 'a.onnx', b.model(b.conv('x', 4, 4, 3, 3), opset=6))
    with pytest.raises(CheckpointError, match='has version 6 of the ONNX operators, and 7 is the oldest'):
        fuse_onnx(source, tmp_path / 'b.onnx')


def test_without_onnx_runtime(block, tmp_path):
    done = run_python('-c', _WITHOUT, block, cwd=tmp_path)
    assert done.stderr == ''
    assert done.stdout == 'ONNX files need onnxruntime, not installed here: pip install "mmrepvgg[onnx]"\n'


_WITHOUT = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'onnxruntime' else find(name, *rest)
from mmrepvgg.runtimes.format import MissingPackageError
from mmrepvgg import fuse_onnx
try:
    fuse_onnx(sys.argv[1], 'new.onnx')
except MissingPackageError as error:
    print(error)
"""


def make_network(name, randomise):
    """timm's network with fewer and narrower blocks."""
    torch.manual_seed(0)
    if name == 'fastvit_t8':
        return randomise(timm.create_model(name, layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32))).eval()
    cfg = model_cfgs[name]
    stages = [[stage] if isinstance(stage, ByoBlockCfg) else stage[:2] for stage in cfg.blocks]
    blocks = tuple(tuple(replace(each, c=16, d=min(each.d, 2)) for each in stage) for stage in stages)
    return randomise(ByobNet(replace(cfg, blocks=blocks, stem_chs=16), num_classes=8)).eval()


def export(net, path, *, dynamo, size=64):
    """Export with everything that is in the training form."""
    x = torch.randn(2, 3, size, size)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter('ignore')
        if dynamo:
            program = torch.onnx.export(net, (x,), dynamo=True, optimize=False, verbose=False)
            program.save(path)
        else:
            torch.onnx.export(
                net, (x,), path, dynamo=False, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE
            )
    return path


@pytest.mark.parametrize(
    ('name', 'dynamo'), [('mobileone_s0', False), ('mobileone_s0', True), ('repvgg_a0', True), ('fastvit_t8', False)]
)
def test_exported_networks(randomise, tmp_path, name, dynamo):
    source = export(make_network(name, randomise), tmp_path / 'a.onnx', dynamo=dynamo)
    result = fuse_onnx(source, tmp_path / 'b.onnx')
    before, after = (onnx.load(tmp_path / f'{each}.onnx') for each in 'ab')
    report = result.report
    assert report.num_branches_left == report.num_norms_left == count(after, 'BatchNormalization') == 0
    assert report.difference < 1e-5
    assert report.num_convs == (count(before, 'Conv'), count(after, 'Conv'))
    assert len(report.fused) >= 7
    assert (tmp_path / 'b.onnx').stat().st_size < source.stat().st_size
    if name == 'repvgg_a0':
        assert count(after, 'Conv') == 8
        assert not count(after, 'Add', 'Mul', 'Sub')


@pytest.mark.parametrize('dynamo', [False, True], ids=['old exporter', 'new exporter'])
def test_files_with_this_projects_metadata(small_cfg, small_source, tmp_path, dynamo):
    """They run as before, with their hash and their description."""
    prepared = prepare_model(
        small_cfg, small_source, input_size=None, batch_size=2, dynamic_size=False, precision='fp32',
        with_preprocess=False, softmax=False, ema=False,
    )  # fmt: skip
    metadata = prepared.metadata
    path = export(wrap_network(prepared.model, metadata, 'fp32'), tmp_path / 'a.onnx', dynamo=dynamo, size=32)
    save_proto(onnx.load(path), path, metadata)
    result = fuse_onnx(path, tmp_path / 'b.onnx')
    assert result.report.num_norms_left == result.report.num_branches_left == 0
    before, after = (load_exported(tmp_path / f'{name}.onnx') for name in 'ab')
    assert after.metadata == metadata
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(after(x), before(x), rtol=0, atol=1e-5)
    # what is fused already stays as it is
    fuse_onnx(tmp_path / 'b.onnx', tmp_path / 'c.onnx')
    assert (tmp_path / 'b.onnx').read_bytes() == (tmp_path / 'c.onnx').read_bytes()
    content = bytearray((tmp_path / 'b.onnx').read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / 'b.onnx').write_bytes(content)
    with pytest.raises(CheckpointError, match=r'b\.onnx is damaged: its content does not have the SHA-256 in it'):
        fuse_onnx(tmp_path / 'b.onnx', tmp_path / 'c.onnx')
