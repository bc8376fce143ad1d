"""Exact equalization: the function stays, int8 loses less, and what can't be rescaled is left alone and named."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_classifier import SMALL_CLASSIFIER
from torch import Tensor, nn

from mmrepvgg import RepVGGBlock, build_backbone, build_classifier, equalize, reparameterize
from mmrepvgg.equalization import scales
from mmrepvgg.models.archs import ARCHS
from mmrepvgg.quantization.analysis.noise import measure_logits_noise
from mmrepvgg.quantization.analysis.observe import observe_activations
from mmrepvgg.quantization.analysis.simulation import simulate

NORMALISED = (2, 3, 32, 32)


@pytest.fixture
def make_deployed(randomise) -> Callable[..., Any]:
    """Make a narrow classifier in deploy form, float64."""

    def make(**backbone: Any) -> Any:
        model = dict(
            type='mmrepvgg.ImageClassifier',
            backbone=dict(type='mmrepvgg.RepVGG', base_channels=16, **backbone),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10),
        )
        return reparameterize(randomise(build_classifier(model)).eval().double())

    return make


def scramble(model: Any) -> Any:
    """The same function with channels of very different size: what equalization must undo."""
    scrambled = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    blocks = [module for module in scrambled.modules() if isinstance(module, RepVGGBlock)]
    layers = [block.branch_reparam for block in blocks]
    with torch.no_grad():
        for layer, block, following in zip(layers, blocks, [*layers[1:], scrambled.head.fc], strict=True):
            factors = (2 * torch.randn(len(layer.weight), generator=generator)).exp().to(layer.weight)
            layer.weight.mul_(factors.view(-1, 1, 1, 1))
            layer.bias.mul_(factors)
            readers = [following] if isinstance(block.se_layer, nn.Identity) else [following, block.se_layer.conv1.conv]
            for reader in readers:
                groups = getattr(reader, 'groups', 1)
                columns = factors.view(groups, 1, -1).expand(-1, len(reader.weight) // groups, -1)
                reader.weight.div_(columns.reshape(len(reader.weight), -1, *[1] * (reader.weight.ndim - 2)))
    return scrambled


@torch.no_grad()
def measure_snr(model: Any, images: Tensor) -> float:
    """Signal over noise of the logits in dB with everything in int8, one scale a tensor."""
    with simulate(model, observe_activations(model, [images]), 'per-tensor'):
        rounded = model(images)
    return measure_logits_noise(model(images), rounded)


@pytest.fixture
def few_steps(monkeypatch) -> None:
    """Stop the search for the best scales early: any scales must leave the function as it is."""
    monkeypatch.setattr(scales, '_MAX_STEPS', 2)


@pytest.mark.usefixtures('few_steps')
@pytest.mark.parametrize(
    ('arch', 'with_images'),
    [*((arch, False) for arch in ARCHS), *((arch, True) for arch in ('A0', 'B1g4', 'D2se', 'L2pse'))],
)
def test_the_function_stays(make_deployed, arch, with_images):
    model, images = make_deployed(arch=arch), torch.randn(NORMALISED).double()
    result = equalize(model, images if with_images else None)
    with torch.no_grad():
        expected, got = model(images), result.model(images)
    assert ((expected - got).abs().max() / expected.abs().max()).item() < 1e-12
    assert result.difference < 1e-12
    assert result.num_images == (2 if with_images else 0)
    assert result.left_alone.pop('head.fc') == 'the model returns it'
    # the gates of squeeze-and-excitation
    assert all('conv2' in name and 'sigmoid' in reason for name, reason in result.left_alone.items())
    assert bool(result.left_alone) == bool(ARCHS[arch].se_cfg)
    for (name, before), after in zip(model.named_parameters(), result.model.parameters(), strict=True):
        if name.endswith('branch_reparam.weight') and not with_images:
            assert not torch.equal(before, after), name


@pytest.mark.parametrize(('se', 'groups'), [(None, 1), (None, 2), ('before the activation', 1), ('behind it', 2)])
def test_scrambled_channels_are_restored(make_deployed, monkeypatch, se, groups):
    monkeypatch.setattr(scales, '_MAX_STEPS', 10)  # to save time
    arch = dict(
        num_blocks=[1, 2, 2, 1],
        width_factor=[1, 1, 1, 1],
        group_layer_map={2: groups, 4: groups},
        se_cfg=se and dict(ratio=4, divisor=1),
        se_after_act=se == 'behind it',
    )
    model = make_deployed(arch=arch).float()
    images = torch.randn(16, 3, 32, 32)
    scrambled = scramble(model)
    with torch.no_grad():
        torch.testing.assert_close(scrambled(images), model(images), rtol=1e-3, atol=1e-4)
    plain, spoilt = measure_snr(model, images), measure_snr(scrambled, images)
    assert spoilt < plain - 10
    assert measure_snr(equalize(scrambled, images).model, images) > plain - 1
    assert measure_snr(equalize(scrambled).model, images) > spoilt


@pytest.mark.usefixtures('few_steps')
def test_batches_are_images(make_deployed):
    """Gradients come from the first images, ranges from all of them, however they are batched."""
    model, images = make_deployed(arch='A0'), torch.randn(40, 3, 32, 32).double()
    whole = equalize(model, images)
    parts = equalize(model, iter(images.split(16)))
    assert whole.num_images == parts.num_images == 40
    for before, after in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(before, after)


def test_a_second_time_does_no_harm(make_deployed, monkeypatch):
    monkeypatch.setattr(scales, '_MAX_STEPS', 10)
    images = torch.randn(16, 3, 32, 32)
    once = equalize(make_deployed(arch='A0').float(), images).model
    assert measure_snr(equalize(once, images).model, images) > measure_snr(once, images) - 1


@pytest.mark.usefixtures('few_steps')
def test_a_copy_and_in_place(make_deployed):
    model = make_deployed(arch='A0').float().train()
    model.head.fc.weight.requires_grad_(False)
    state, keys = copy.deepcopy(model.state_dict()), list(model.state_dict())
    result = equalize(model).model
    assert result is not model
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert list(result.state_dict()) == keys
    for network in (model, result, equalize(model, inplace=True).model):
        assert network.training
        assert network.backbone.training
        assert [p.requires_grad for p in network.head.fc.parameters()] == [False, True]
        assert all(p.requires_grad and p.dtype == torch.float32 for p in network.backbone.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, result.state_dict()[key]), key


@pytest.mark.usefixtures('few_steps')
@pytest.mark.parametrize('block', ['RepVGGBlock', 'QARepVGGBlock'])
@pytest.mark.parametrize(
    ('act', 'is_homogeneous'),
    [('ReLU', True), ('LeakyReLU', True), (None, True), ('SiLU', False), ('GELU', False), ('ReLU6', False)],
)
def test_activations(make_deployed, block, act, is_homogeneous):
    model = make_deployed(arch='A0', block=block, act_cfg=act and dict(type=act))
    if not is_homogeneous:
        with pytest.raises(
            ValueError, match=r'nothing in ImageClassifier can be rescaled, .* pass: backbone.stem: it goes into'
        ):
            equalize(model)
        return
    result = equalize(model)
    assert result.difference < 1e-12
    assert list(result.left_alone) == ['head.fc']


@pytest.mark.usefixtures('few_steps')
@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect', 'replicate', 'circular'])
def test_geometry(randomise, padding_mode):
    blocks = [
        RepVGGBlock(3, 8, padding_mode=padding_mode),
        RepVGGBlock(8, 8, padding=2, dilation=2, groups=2, padding_mode=padding_mode),
        RepVGGBlock(8, 4, stride=2, groups=4, padding_mode=padding_mode),
        RepVGGBlock(4, 4),
    ]
    model = reparameterize(randomise(nn.Sequential(*blocks)).eval()).double()
    result = equalize(model)
    assert result.difference < 1e-12
    assert result.num_channels == 8 + 8 + 4
    assert result.left_alone == {'3': 'the model returns it'}


@pytest.mark.usefixtures('few_steps')
def test_returned_stages_keep_their_scale(randomise):
    backbone = build_backbone(dict(type='RepVGG', arch='A0', base_channels=16, out_indices=(1, (2, 3), 3)))
    backbone = reparameterize(randomise(backbone).eval()).double()
    result = equalize(backbone)
    assert result.left_alone == dict.fromkeys(['stage_2.3', 'stage_3.3', 'stage_4.0'], 'the model returns it')
    images = torch.randn(NORMALISED).double()
    for before, after in zip(backbone(images), result.model(images), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-12)


class Residual(nn.Module):
    """Tensors that are added, gated, returned through an unknown function, and read twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.fourth = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 3, padding=1)
        self.odd, self.shared = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 5, 1)
        self.last = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x + self.second(x).relu()
        x = self.third(x) * self.fourth(x).mean((2, 3), keepdim=True).sigmoid()
        x = self.odd(nn.functional.max_pool2d(nn.functional.leaky_relu(x, 0.1), 2)).tanh()
        x = self.shared(self.shared(x).relu()).relu()
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize('with_images', [False, True])
def test_sums_products_and_shared_weights(with_images):
    model = Residual().double()
    images = torch.randn(4, 3, 16, 16).double()
    result = equalize(model, images if with_images else None)
    torch.testing.assert_close(result.model(images), model(images), rtol=1e-12, atol=1e-12)
    assert result.num_channels == 8 + 6  # the sum counts once
    assert dict(result.left_alone) == {
        'fourth': 'it goes into sigmoid',
        'odd': 'it goes into tanh',
        'last': 'the model returns it',
    }
    # both terms of the sum have the same scales
    first, second = (
        result.model.get_parameter(f'{name}.bias') / model.get_parameter(f'{name}.bias') for name in ('first', 'second')
    )
    torch.testing.assert_close(first, second)
    for name in ('odd', 'shared'):
        assert torch.equal(result.model.get_parameter(f'{name}.bias'), model.get_parameter(f'{name}.bias'))


class BlockedSum(nn.Module):
    """A sum whose one term also goes through a function that is not homogeneous."""

    def __init__(self, order: int):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.order = order

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, other = self.first(x), self.second(x)
        gate = other.sigmoid()
        return self.last(one + other if self.order else other + one), gate


@pytest.mark.parametrize('order', [0, 1])
def test_a_sum_with_a_term_that_keeps_its_scale(order):
    with pytest.raises(ValueError, match='first: it goes into sigmoid; second: it goes into sigmoid; last: the model'):
        equalize(BlockedSum(order))


def test_dead_channels(make_deployed):
    model = make_deployed(arch='A0').float()
    stage, following = model.backbone.stage_2[0].branch_reparam, model.backbone.stage_2[1].branch_reparam
    with torch.no_grad():
        stage.weight[0], stage.bias[0] = 0, 0  # nothing comes in
        following.weight[:, 1] = 0  # nobody reads it
        stage.bias[2] = -1e6  # it never fires
        stage.weight[3], following.weight[:, 3] = 0, 0
        stage.weight[4] *= 1e-20
    images = torch.randn(NORMALISED)
    for given in (None, images):
        result = equalize(model, given)
        assert result.difference < 1e-5
        assert all(value.isfinite().all() for value in result.model.state_dict().values())


class Untraceable(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(x).relu()


@pytest.mark.usefixtures('few_steps')
def test_errors(make_deployed, randomise):
    with pytest.raises(ValueError, match='ImageClassifier has blocks in train form.*`reparameterize` first'):
        equalize(build_classifier(SMALL_CLASSIFIER))
    model = make_deployed(arch='A0').float()
    with pytest.raises(ValueError, match='weights must be float32 or float64, got torch.float16; equalize the model'):
        equalize(copy.deepcopy(model).half())
    for images in ([], torch.zeros(0, 3, 32, 32)):
        with pytest.raises(ValueError, match='`images` must have at least one image'):
            equalize(model, images)
    with pytest.raises(ValueError, match='nothing in Linear can be rescaled, .* pass: : the model returns it'):
        equalize(nn.Linear(3, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r'Linear has no Conv2d; give `images`'):
        equalize(nn.Linear(3, 3))
    with pytest.raises(ValueError, match='Untraceable can not be traced by torch.export: '):
        equalize(Untraceable(), torch.zeros(1, 3, 8, 8))
    state = copy.deepcopy(model.state_dict())
    state['backbone.stem.branch_reparam.weight'][0, 0, 0, 0] = float('nan')
    model.load_state_dict(state)
    for images in (None, torch.randn(NORMALISED)):
        with pytest.raises(ValueError, match='not finite'):
            equalize(model, images, inplace=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(), state[key].nan_to_num())
