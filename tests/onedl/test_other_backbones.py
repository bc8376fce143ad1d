"""Detectors and segmentors on backbones of mmpretrain and timm: switched as a whole, and their backbones exported."""

import re
from itertools import chain
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from tool_runs import ROOT, run_python

from mmrepvgg import reparameterize
from mmrepvgg.models.building import build_model

EXAMPLES = {
    'detection': ROOT / 'examples/detection/retinanet_repvgg-a0_shapes.py',
    'segmentation': ROOT / 'examples/segmentation/pspnet_repvgg-a0_shapes.py',
}
BACKBONES = {
    'mobileone': dict(type='mmpretrain.MobileOne', arch='s0', out_indices=(1, 2, 3)),
    'mobileone_s0': dict(type='mmpretrain.TIMMBackbone', features_only=True, out_indices=(2, 3, 4)),
    'repvit_m0_9': dict(type='mmpretrain.TIMMBackbone', features_only=True, out_indices=(1, 2, 3)),
    'fastvit_t8': dict(type='mmpretrain.TIMMBackbone', features_only=True, out_indices=(1, 2, 3)),
}
# Layers that RetinaNet calls once a level, without norms; a head that helps in training only, with one norm.
LEFT = {'detection': ('bbox_head.retina_cls', 'bbox_head.retina_reg'), 'segmentation': ('auxiliary_head.',)}


def make_config(task: str, name: str) -> Config:
    """The example's config of a task with another backbone."""
    cfg = Config.fromfile(EXAMPLES[task])
    backbone: dict[str, Any] = dict(BACKBONES[name])
    if 'TIMM' in backbone['type']:
        backbone['model_name'] = name
    with torch.no_grad():
        channels = [feature.shape[1] for feature in MODELS.build(dict(backbone))(torch.zeros(2, 3, 64, 64))]
    cfg.model.backbone = backbone
    if task == 'detection':
        cfg.model.neck.in_channels = channels
    else:
        for head, index in ((cfg.model.auxiliary_head, 1), (cfg.model.decode_head, 2)):
            head.in_channels, head.in_index = channels[index], index
    return cfg


@pytest.mark.parametrize('task', EXAMPLES)
@pytest.mark.parametrize('name', BACKBONES)
@torch.no_grad()
def test_the_whole_model_switches_to_equal_outputs(task, name, randomise):
    model = randomise(build_model(make_config(task, name), deploy=False)).double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    deployed, report = reparameterize(model, images, return_report=True)
    assert report.num_branches_left == 0, str(report)
    assert all(name.startswith(LEFT[task]) for name in report.left), str(report)
    assert report.num_norms_left <= (task == 'segmentation'), str(report)
    assert report.difference < 1e-10
    before, after = (_flatten(form(images)) for form in (model, deployed))
    for expected, found in zip(before, after, strict=True):
        largest = expected.abs().max()
        assert largest > 1e-3
        torch.testing.assert_close(found / largest, expected / largest, atol=1e-10, rtol=0)


@pytest.mark.parametrize('name', ['mobileone', 'repvit_m0_9'])
def test_the_exported_backbone_gives_the_checkpoints_feature_maps(name, randomise, tmp_path):
    cfg = make_config('detection', name)
    cfg.dump(tmp_path / 'detector.py')
    model = randomise(build_model(cfg, deploy=False))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'detector.pth')
    script = ROOT / 'examples/detection/export_backbone.py'
    done = run_python(script, 'detector.py', 'detector.pth', 'backbone.onnx', '--size', 64, 96, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.fullmatch(r'backbone.onnx: 3 feature maps, largest difference (\S+)', done.stdout.splitlines()[-1])
    assert float(found[1]) < 1e-5


def _flatten(outputs: Any) -> list[torch.Tensor]:
    """The tensors of a detector's or segmentor's outputs."""
    return [outputs] if isinstance(outputs, torch.Tensor) else [*chain.from_iterable(outputs)]
