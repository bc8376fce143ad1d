"""Equalized files: checkpoints in deploy form and exported files of the same function, which int8 serves better."""

import re

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tool_runs import SMALL, SMALL_DEPLOY, fail_here, succeed_here

from mmrepvgg import build_classifier, load_config, reparameterize_checkpoint
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.export import export_model
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.prepared import normalise

REPORT = r'equalized: [\d,]+ channels rescaled; outputs left as they are: head\.fc \(the model returns it\)'


@pytest.fixture(scope='module')
def images(digits):
    """Digits as the model takes them, and their scores by the trained model."""
    cfg = load_config(str(SMALL))
    cfg.test_dataloader.dataset.data_root = str(digits / 'data/digits')
    model = load_classifier(cfg, digits / 'small.pth')
    batch, _ = next(iterate_samples(cfg, 'test', 60, batch_size=60))
    with torch.no_grad():
        return normalise(model, batch), model(normalise(model, batch))


@pytest.mark.parametrize('with_data', [False, True])
@pytest.mark.parametrize('source', ['small.pth', 'small_deploy.pth'])
def test_a_checkpoint(workspace, images, source, with_data):
    data = ['--data', 'data/digits/val/3'] if with_data else []
    output = succeed_here('reparameterize', SMALL, source, 'equal.pth', '--equalize', *data, cwd=workspace)
    assert re.search(rf'^{REPORT}$', output, re.MULTILINE)
    assert float(re.search('largest difference (.*?) of', output)[1]) < 1e-5
    plain, equalized = (read_checkpoint(workspace / name) for name in ('small_deploy.pth', 'equal.pth'))
    assert equalized.meta['mmrepvgg']['equalized'] is True
    assert plain.meta['mmrepvgg']['equalized'] is False
    assert [(key, value.shape, value.dtype) for key, value in plain.state_dict.items()] == [
        (key, value.shape, value.dtype) for key, value in equalized.state_dict.items()
    ]
    key = 'backbone.stage_3.0.branch_reparam.weight'
    assert not torch.allclose(plain.state_dict[key], equalized.state_dict[key], rtol=0.01)
    with torch.no_grad():
        scores = load_classifier(load_config(str(SMALL_DEPLOY)), workspace / 'equal.pth')(images[0])
    assert (scores - images[1]).abs().max() < 1e-4 * images[1].abs().max()


def test_an_exported_file(workspace, images):
    cfg, weights = load_config(str(SMALL)), []
    for options in ([], ['--equalize'], ['--equalize', '--data', 'data/digits/val/3']):
        output = succeed_here('export', SMALL, 'small.pth', 'net.onnx', *options, cwd=workspace)
        assert bool(re.search(rf'^{REPORT}$', output, re.MULTILINE)) == bool(options)
        scores = load_exported(workspace / 'net.onnx')(images[0])
        assert (scores - images[1]).abs().max() < 1e-4 * images[1].abs().max()
        tensors = onnx.load(workspace / 'net.onnx').graph.initializer
        weights.append(np.concatenate([numpy_helper.to_array(tensor).ravel() for tensor in tensors]))
    assert len({len(values) for values in weights}) == 1
    for one, other in ((0, 1), (1, 2)):
        assert not np.allclose(weights[one], weights[other], rtol=0.01)
    assert export_model(cfg, workspace / 'small.pth', workspace / 'net.safetensors', equalize=True).num_equalized


def test_a_deploy_form_is_refused_without_it(workspace):
    message = fail_here('reparameterize', SMALL, 'small_deploy.pth', 'new.pth', cwd=workspace)
    assert (
        'there is nothing to convert; test it with the deploy config, or rescale it for int8 with --equalize' in message
    )


def test_a_model_that_was_trained_for_int8_is_refused(workspace):
    cfg = load_config(str(SMALL))
    cfg.model.backbone.quantization = dict(granularity='per-tensor')
    torch.save(build_classifier(cfg.model).state_dict(), workspace / 'qat.pth')
    (workspace / 'new.pth').write_bytes(b'precious')
    for function, name in ((reparameterize_checkpoint, 'new.pth'), (export_model, 'net.onnx')):
        with pytest.raises(ValueError, match=r'`equalize` would change weights and ranges .* with `quantize_model`'):
            function(cfg, workspace / 'qat.pth', workspace / name, equalize=True)
    assert (workspace / 'new.pth').read_bytes() == b'precious'
    assert not (workspace / 'net.onnx').exists()
