import json

import pytest
import torch
from published import NUM_PARAMS

from mmrepvgg import RepVGG, RepVGGBlock, build_classifier
from mmrepvgg.models.archs import ARCHS, Arch, get_arch
from mmrepvgg.runtimes.export import export_model
from mmrepvgg.runtimes.loading import load_exported


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('arch', [arch for arch in NUM_PARAMS if arch != 'L2pse'])
def test_parameters_equal_the_published_numbers(arch, deploy):
    with torch.device('meta'):
        backbone = RepVGG(arch, deploy=deploy)
    width = int(64 * 8 * ARCHS[arch].width_factor[-1])
    head = 1000 * width + 1000
    assert sum(p.numel() for p in backbone.parameters()) + head == NUM_PARAMS[arch][deploy]


def test_a_dict_gives_the_same_network_as_the_preset():
    arch = dict(num_blocks=[4, 6, 16, 1], width_factor=[2, 2, 2, 4], group_layer_map=dict.fromkeys(range(2, 27, 2), 4))
    assert get_arch(arch) == ARCHS['B1g4']
    # mmpretrain's dicts have every key
    full = dict(num_blocks=[2, 4, 14, 1], width_factor=[0.75, 0.75, 0.75, 2.5], group_layer_map=None, se_cfg=None)
    assert get_arch(full) == ARCHS['A0']


@pytest.mark.parametrize('arch', ['A0', 'B1g4', 'D2se', 'yolox-pai-small'])
def test_archs_survive_json(arch):
    assert get_arch(json.loads(json.dumps(dict(ARCHS[arch])))) == ARCHS[arch]


def test_a_grouped_network_survives_safetensors(small_cfg, randomise, tmp_path):
    """The file describes the network in JSON."""
    pytest.importorskip('safetensors')
    small_cfg.model.backbone.arch.group_layer_map = {2: 2, 4: 4}
    model = randomise(build_classifier(small_cfg.model)).eval()
    assert [m.groups for m in model.backbone.modules() if isinstance(m, RepVGGBlock)] == [1, 1, 2, 1, 4]
    torch.save(model.state_dict(), tmp_path / 'train.pth')
    export_model(small_cfg, tmp_path / 'train.pth', tmp_path / 'net.safetensors')
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load_exported(tmp_path / 'net.safetensors')(x), model(x), atol=1e-5, rtol=1e-5)


def test_stem_channels_and_number_of_stages_are_free():
    arch = dict(num_blocks=[3, 5, 7], width_factor=[1, 1, 1], stem_channels=32)
    backbone = RepVGG(arch, strides=(2, 2, 2), dilations=(1, 1, 1), out_indices=(2,))
    assert backbone.stem.out_channels == 32
    assert backbone(torch.rand(1, 3, 32, 32))[0].shape == (1, 256, 2, 2)


@pytest.mark.parametrize(
    ('arch', 'error', 'message'),
    [
        ('A9', ValueError, "arch must be one of A0, .*, got 'A9'"),
        (7, TypeError, 'arch must be the name of a preset or a dict, got int'),
        (dict(num_blocks=[1]), ValueError, 'missing: width_factor'),
        (dict(num_blocks=[1], width_factor=[1], se=1), ValueError, 'got also se'),
        (dict(num_blocks=[1, 0], width_factor=[1, 1]), ValueError, 'num_blocks must be positive integers'),
        (dict(num_blocks=[1, 1], width_factor=[1]), ValueError, 'width_factor must have one number a stage'),
        (dict(num_blocks=[1], width_factor=[1], group_layer_map={2: 2}), ValueError, 'block numbers from 1 to 1'),
        (dict(num_blocks=[9], width_factor=[1], group_layer_map={'x2': 2}), ValueError, r"numbers .* got 'x2': 2"),
        (dict(num_blocks=[9], width_factor=[1], group_layer_map={2: '2'}), ValueError, r"numbers .* got 2: '2'"),
        (dict(num_blocks=[9], width_factor=[1], group_layer_map=[2]), TypeError, r'a dict or None, got \[2\]'),
        (dict(num_blocks=[1], width_factor=[1], se_cfg=16), TypeError, 'se_cfg must be a dict or None, got 16'),
    ],
)
def test_a_wrong_arch_is_refused_with_the_reason(arch, error, message):
    with pytest.raises(error, match=message):
        get_arch(arch)


def test_archs_cannot_be_changed_by_a_user_of_them():
    with pytest.raises(AttributeError, match='cannot assign to field'):
        ARCHS['A0'].stem_channels = 32
    assert isinstance(ARCHS['A0'], Arch)
