"""The switch of modules that this project does not know, by the structure of their code."""

import copy
import io
import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from switching import Branches, conv_norm, noise, switch
from torch import nn

from mmrepvgg import reparameterize
from mmrepvgg.reparam.structure.algebra import InexactError, add, chain
from mmrepvgg.reparam.structure.layers import make_conv
from mmrepvgg.reparam.structure.making import make_layer


class TestPatterns:
    @pytest.mark.parametrize('axes', [1, 2, 3])
    def test_branches_of_all_kinds_become_one_convolution(self, make, axes):
        conv, norm = getattr(nn, f'Conv{axes}d'), getattr(nn, f'BatchNorm{axes}d')
        pool = getattr(nn, f'AvgPool{axes}d')
        block = Branches(
            conv_norm(6, 6, 5, padding=2, kind=conv, norm=norm),
            conv_norm(6, 6, 3, padding=1, groups=3, kind=conv, norm=norm),
            conv_norm(6, 6, 3, padding=2, dilation=2, bias=False, kind=conv, norm=norm),
            nn.Sequential(conv(6, 6, 1, bias=False), conv(6, 6, 3, padding=1)),
            nn.Sequential(conv(6, 6, 1, bias=False), pool(3, 1, 1)),
            norm(6),
            nn.Identity(),
        )
        switched, report = switch(make(block), noise(2, 6, *[9] * axes))
        assert report.num_convs == (6, 1)
        assert report.num_branches_left == report.num_norms_left == 0
        assert list(switched.state_dict()) == ['branches.0.0.weight', 'branches.0.0.bias']

    def test_layer_scales_and_differences(self, make):
        class Mixer(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.mixer, self.gamma = nn.BatchNorm2d(4), conv_norm(4, 4, 7, padding=3, groups=4), None
                self.gamma = nn.Parameter(torch.rand(4, 1, 1))

            def forward(self, x):
                return x + self.gamma * (self.mixer(x) - self.norm(x)) * 0.5

        switched, report = switch(make(Mixer()), noise(2, 4, 9, 9))
        assert report.num_branches_left == report.num_norms_left == 0
        assert sorted(switched.state_dict()) == ['mixer.0.bias', 'mixer.0.weight']

    def test_linear_layers_and_their_norms(self, make):
        head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(), nn.Linear(12, 5), nn.BatchNorm1d(5))
        switched, report = switch(make(head), noise(4, 3, 2, 2))
        assert report.num_norms_left == 0
        assert list(switched.state_dict()) == ['3.weight', '3.bias']

    def test_a_norm_over_other_channels_than_those_of_the_linear_layer_stays(self, make):
        """(N, L, C): BatchNorm1d is over L."""
        _, report = switch(make(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))), noise(4, 5, 6))
        assert report.num_norms_left == 1

    def test_a_norm_of_tokens(self, make):
        """As in LeViT: the norm sees the tokens of all images as one batch."""

        class LinearNorm(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear, self.norm = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5)

            def forward(self, x):
                x = self.linear(x)
                return self.norm(x.flatten(0, 1)).reshape_as(x)

        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.token = conv_norm(3, 6, 3), LinearNorm()

            def forward(self, x):
                return self.token(self.stem(x).flatten(2).transpose(1, 2)).mean(1)

        assert switch(make(Tokens()), noise(2, 3, 6, 7))[1].num_norms_left == 0
        # by itself nothing tells that its inputs are (N, L, C)
        assert switch(make(LinearNorm()), noise(2, 3, 6))[1].num_norms_left == 1

    def test_transposed_convolutions(self, make):
        model = nn.Sequential(nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2), nn.BatchNorm2d(6))
        assert switch(make(model), noise(1, 4, 5, 5))[1].num_norms_left == 0
        twice = Branches(conv_norm(4, 6, 2, 2, kind=nn.ConvTranspose2d), conv_norm(4, 6, 2, 2, kind=nn.ConvTranspose2d))
        assert switch(make(twice), noise(1, 4, 5, 5))[1].num_convs == (2, 1)

    def test_kernels_that_the_code_computes(self, make):
        class Computed(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.three = nn.Parameter(torch.rand(6, 4, 1, 1)), nn.Parameter(torch.rand(6, 4, 3, 3))
                self.norm = nn.BatchNorm2d(6)

            def forward(self, x):
                return self.norm(F.conv2d(x, self.three + F.pad(self.one, [1] * 4), padding=1)).relu()

        switched, report = switch(make(Computed()), noise(1, 4, 5, 5))
        assert list(switched.state_dict()) == ['fused_conv.weight', 'fused_conv.bias']
        assert report.fused[0].name == 'fused_conv'

    def test_convolutions_with_a_padding_of_their_own_take_the_norm(self, make):
        from timm.layers import Conv2dSame

        switched, report = switch(make(nn.Sequential(Conv2dSame(3, 8, 3, 2), nn.BatchNorm2d(8))), noise(1, 3, 12, 13))
        assert type(switched[0]) is Conv2dSame
        assert report.num_norms_left == 0

    def test_a_layer_that_is_called_often_is_fused_once(self, make):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Branches(conv_norm(4, 4, 3, padding=1), conv_norm(4, 4, 1))

            def forward(self, x):
                return self.block(self.block(x))

        assert switch(make(Shared()), noise(1, 4, 5, 5))[1].num_convs == (2, 1)


class TestWhatStays:
    def left(self, model, x):
        _, report = switch(model, x)
        return report

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    @pytest.mark.parametrize(
        ('branch', 'reason'),
        [
            (nn.Sequential(conv_norm(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)), 'the border has no bias'),
            (nn.Sequential(nn.Conv2d(4, 4, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)), 'count its padding'),
            (
                nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1)),
                'padding between',
            ),
            (nn.Conv2d(4, 4, 3, padding=1, padding_mode='reflect'), 'pad in different ways: reflect and zeros'),
        ],
    )
    def test_border_effects(self, make, branch, reason):
        report = self.left(make(Branches(nn.Conv2d(4, 4, 3, padding=1), branch)), noise(1, 4, 7, 7))
        assert report.num_branches_left == 1
        assert reason in next(iter(report.branches.values()))

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    def test_one_convolution_with_more_weights(self, make):
        block = Branches(nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.Conv2d(8, 8, 1))
        report = self.left(make(block), noise(1, 8, 9, 9))
        assert 'more weights (3,136 instead of 456)' in next(iter(report.branches.values()))

    def test_it_is_said_as_a_warning(self, make):
        block = make(Branches(nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.Conv2d(8, 8, 1)))
        with pytest.warns(UserWarning, match=r'1 sum\(s\) of parallel linear branches are left in Branches\. add: one'):
            reparameterize(block)

    def test_values_that_are_used_elsewhere(self, make):
        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

            def forward(self, x):
                y = self.conv(x)
                return self.norm(y) * y.sigmoid()

        assert self.left(make(Both()), noise(1, 3, 5, 5)).num_norms_left == 1

    def test_a_shape_is_no_value(self, make):
        class Shape(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

            def forward(self, x):
                y = self.conv(x)
                return self.norm(y).reshape(y.shape[0], y.size(1), -1)

        assert self.left(make(Shape()), noise(1, 3, 5, 5)).num_norms_left == 0

    def test_hooks_keep_what_they_see(self, make):
        model, seen = make(nn.Sequential(conv_norm(3, 4, 3), nn.ReLU(), conv_norm(4, 4, 3))), []
        model[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
        model[2][0].register_forward_hook(lambda module, inputs, output: seen.append(output))
        switched, report = switch(model, noise(1, 3, 7, 7))
        assert report.num_norms_left == 1
        assert report.left['2.0'] == 'the layer has a hook, which sees or changes its values'
        seen.clear()
        x = noise(1, 3, 7, 7)
        model(x), switched(x)
        for before, after in zip(seen[:2], seen[2:], strict=True):
            torch.testing.assert_close(after, before, atol=1e-10, rtol=0)

    def test_shared_weights(self, make):
        model = nn.Sequential(conv_norm(4, 4, 3), nn.ReLU(), conv_norm(4, 4, 3))
        model[2][0].weight = model[0][0].weight
        report = self.left(make(model), noise(1, 4, 7, 7))
        assert report.left['0.0'] == 'the layer shares its weights with another one'

    def test_a_norm_without_statistics(self, make):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
        assert 'track_running_stats' in self.left(make(model), noise(2, 3, 5, 5)).left['1']

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    def test_arguments_that_steer_the_code(self, make):
        class Steered(Branches):
            def forward(self, x, scale=None):
                return super().forward(x) if scale is None else super().forward(x * scale)

        block = make(Steered(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)))
        switched, report = reparameterize(block, return_report=True)
        assert 'an argument of `forward` that may be left out' in next(iter(report.branches.values()))
        x = noise(1, 4, 5, 5)
        torch.testing.assert_close(switched(x, 2.0), block(x, 2.0), atol=1e-10, rtol=0)
        # the caller's code says which arguments it gives
        model = make(nn.Sequential(Steered(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)), nn.ReLU()))
        assert switch(model, x)[1].num_branches_left == 0

    def test_code_that_can_not_be_followed(self, make):
        class Closed(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Branches(conv_norm(3, 4, 3, padding=1), conv_norm(3, 4, 1))
                self.norm = nn.BatchNorm2d(4)

            def forward(self, x):
                return self.norm(self.block(x)) if x.sum() > 0 else x

        _, report = switch(make(Closed()), noise(1, 3, 5, 5))
        assert report.num_convs == (2, 1)
        assert 'control flow' in report.not_followed['Closed']
        assert '0 parallel linear branches left, as far as the code could be followed' in str(report)


class TestTheResult:
    def model(self):
        return nn.Sequential(Branches(conv_norm(3, 8, 3, padding=1), conv_norm(3, 8, 1)), conv_norm(8, 4, 3))

    def test_it_stays_what_it_is(self, make):
        model = make(self.model()).train()
        model[0].note, model[0].branches.requires_grad_ = 'mine', model[0].branches.requires_grad_
        model[1].requires_grad_(False)
        switched = reparameterize(model)
        assert isinstance(switched[0], Branches)
        assert type(switched[0]).__name__ == 'Branches'
        assert switched[0].note == 'mine'
        assert all(module.training for module in switched.modules())
        assert [each.requires_grad for each in switched.parameters()] == [True, True, False, False]
        switched(noise(2, 3, 7, 7)).sum().backward()

    def test_copies_pickles_and_graphs(self, make):
        switched, x = reparameterize(make(self.model())), noise(2, 3, 7, 7)
        expected = switched(x)
        stream = io.BytesIO()
        torch.save(switched, stream)
        stream.seek(0)
        loaded = torch.load(stream, weights_only=False)
        exported = torch.export.export(switched, (x,)).module()
        for other in (copy.deepcopy(switched), loaded, exported, torch.jit.script(switched), reparameterize(switched)):
            torch.testing.assert_close(other(x), expected, atol=1e-12, rtol=0)

    def test_keys_are_those_of_any_model_of_the_kind(self, make):
        fresh = reparameterize(self.model())
        trained = reparameterize(make(self.model()))
        assert list(fresh.state_dict()) == ['0.branches.0.0.weight', '0.branches.0.0.bias', '1.0.weight', '1.0.bias']
        fresh.double().eval().load_state_dict(trained.state_dict())
        x = noise(1, 3, 7, 7)
        assert torch.equal(fresh(x), trained(x))

    def test_in_place(self, make):
        model, x = make(self.model()), noise(1, 3, 7, 7)
        expected, block = model(x), model[0]
        assert reparameterize(model, inplace=True) is model
        assert model[0] is block
        torch.testing.assert_close(model(x), expected, atol=1e-10, rtol=0)

    @pytest.mark.parametrize('inplace', [True, False])
    def test_a_difference_above_the_tolerance_changes_nothing(self, make, inplace):
        model, x = make(self.model()).float(), noise(1, 3, 7, 7).float()
        before, expected = list(model.state_dict()), model(x)
        with pytest.raises(
            ValueError, match=r'differ by .* more than the tolerance of 1e-12; the model has not changed'
        ):
            reparameterize(model, x, tolerance=1e-12, inplace=inplace)
        assert list(model.state_dict()) == before
        assert torch.equal(model(x), expected)

    def test_kernels_that_half_precision_can_not_hold(self, make):
        model = make(self.model())
        for part in (model[0].branches[0][0], model[0].branches[0][1]):
            part.weight.data.fill_(3e4)
        model = model.half()
        before = list(model.state_dict())
        with pytest.raises(OverflowError, match=r'too large for torch\.float16, 65504 at most'):
            reparameterize(model, inplace=True)
        assert list(model.state_dict()) == before

    def test_stochastic_depth_stays_in_training(self, make):
        from timm.layers import DropPath

        class Residual(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.drop = conv_norm(4, 4, 3, padding=1), DropPath(0.5)

            def forward(self, x):
                return F.relu(x) + self.drop(self.conv(F.relu(x)))

        _switched, report = switch(make(Residual()), noise(2, 4, 5, 5))
        assert report.num_norms_left == 0

    def test_tensors_that_the_code_makes(self, make):
        class Made(Branches):
            def forward(self, x):
                return super().forward(x).mul(torch.arange(4.0).view(-1, 1, 1)).tanh() + torch.ones(5)

        model = make(Made(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)))
        switched, report = switch(model, noise(1, 4, 5, 5))
        assert report.num_convs == (2, 1)
        assert list(copy.deepcopy(switched).state_dict()) == ['branches.0.weight', 'branches.0.bias']

    def test_channels_last_stays(self, make):
        model = make(self.model()).to(memory_format=torch.channels_last)
        for layer in reparameterize(model).modules():
            if isinstance(layer, nn.Conv2d):
                assert layer.weight.is_contiguous(memory_format=torch.channels_last)

    def test_example_inputs_of_all_kinds(self, make):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = conv_norm(3, 4, 3)

            def forward(self, x, y):
                return dict(sum=self.conv(x) + y, count=torch.tensor(3))

        model, x = make(Two()), noise(1, 3, 5, 5)
        for inputs in ((x, x[:, :1, 2:, 2:]), dict(x=x, y=x[:, :1, 2:, 2:])):
            _, report = reparameterize(model, inputs, return_report=True)
            assert report.difference < 1e-10

    def test_the_report(self, make):
        _, report = reparameterize(make(self.model()), noise(1, 3, 7, 7), return_report=True, by_layer=True)
        text = str(report).splitlines()
        assert text[0] == '6 layers became 2; convolutions: 3 -> 2'
        assert text[1:3] == ['0 parallel linear branches left', '0 batch norms left']
        assert text[3].startswith('largest difference: ')
        assert set(report.layer_differences) == {'0', '0.act', '1', '1.1'}
        assert json.loads(json.dumps(report.to_dict()))['num_branches_left'] == 0

    def test_layers_need_inputs(self, make):
        with pytest.raises(ValueError, match='`by_layer` compares outputs, which needs `example_inputs`'):
            reparameterize(make(self.model()), by_layer=True)


@st.composite
def make_maps(draw, inputs, outputs, axes):
    groups = draw(st.sampled_from([each for each in (1, 2, 4) if inputs % each == outputs % each == 0]))
    numbers = st.integers(1, 3)
    size = [draw(numbers) for _ in range(axes)]
    weight = torch.randn(outputs, inputs // groups, *size, dtype=torch.float64)
    bias = torch.randn(outputs, dtype=torch.float64) if draw(st.booleans()) else None
    stride, dilation = ([draw(st.integers(1, 2)) for _ in range(axes)] for _ in range(2))
    padding = [draw(st.integers(0, 2)) for _ in range(axes)]
    return make_conv(weight, bias, stride, padding, dilation, groups)


def run_map(one, x):
    left_right = [each for pair in reversed(one.padding) for each in pair]
    conv = (F.conv1d, F.conv2d, F.conv3d)[one.num_axes - 1]
    return conv(F.pad(x, left_right), one.weight, one.bias, one.stride, 0, one.step, one.groups)


class TestAlgebra:
    """Whatever sum or chain is not refused is exact, for inputs of all sizes."""

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.data())
    def test_sums(self, data):
        axes = data.draw(st.integers(1, 3))
        one, other = (data.draw(make_maps(4, 4, axes)) for _ in range(2))
        try:
            joined = add(one, other)
        except InexactError:
            return
        for length in (9, 10, 13):
            x = noise(1, 4, *range(length, length + axes))
            torch.testing.assert_close(run_map(joined, x), run_map(one, x) + run_map(other, x), atol=1e-10, rtol=0)

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.data())
    def test_chains(self, data):
        axes = data.draw(st.integers(1, 3))
        first, second = data.draw(make_maps(4, 2, axes)), data.draw(make_maps(2, 4, axes))
        try:
            joined = chain(first, second)
        except InexactError:
            return
        for length in (13, 14, 17):
            x = noise(1, 4, *range(length, length + axes))
            expected = run_map(second, run_map(first, x))
            torch.testing.assert_close(run_map(joined, x), expected, atol=1e-10, rtol=0)

    def test_a_layer_of_torch_pads_both_sides_alike(self):
        one, x = make_conv(noise(4, 4, 2, 2), noise(4), padding='same'), noise(1, 4, 6, 6)
        assert one.padding == ((0, 1), (0, 1))
        layer = make_layer(one, torch.float64)
        assert (layer.kernel_size, layer.padding) == ((3, 3), (1, 1))
        torch.testing.assert_close(layer(x), run_map(one, x), atol=1e-12, rtol=0)
