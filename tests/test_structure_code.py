"""Blocks whose code does more than call layers: what is followed, what is not touched, and what the report says."""

import copy

import pytest
import torch
import torch.nn.functional as F
from switching import Branches, branches, conv_norm, noise, switch
from torch import nn

from mmrepvgg import reparameterize


class SqueezeExcite(nn.Module):
    """Asks for the size of its input, and gives it to a function of torch."""

    def __init__(self, channels):
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        batch, channels, height, width = x.size()
        pooled = F.avg_pool2d(x, kernel_size=[height, width])
        return x * self.reduce(pooled).sigmoid().view(batch, channels, 1, 1)


class Typed(Branches):
    """Its code asks for the type of its input."""

    def forward(self, x):
        return super().forward(x) if isinstance(x, torch.Tensor) else x


class TestContexts:
    def test_an_attribute_with_the_name_of_a_context_is_none(self, make):
        """The authors' MobileOne keeps its form in ``inference_mode``."""

        class Block(Branches):
            inference_mode = False

            def forward(self, x):
                return x if self.inference_mode else super().forward(x)

        assert switch(make(Block(*branches())), noise(2, 4, 7, 7))[1].num_convs == (2, 1)

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    @pytest.mark.parametrize(
        'context', [torch.no_grad, torch.inference_mode, lambda: torch.autocast('cpu', enabled=False)]
    )
    @pytest.mark.parametrize('is_called', [False, True])
    def test_code_in_a_context_stays(self, make, context, is_called):
        class Held(Branches):
            def run(self, x):
                with context():
                    return super().forward(x)

            def forward(self, x):
                return self.run(x).relu()

        model = make(nn.Sequential(Held(*branches()), *branches()) if is_called else Held(*branches()))
        with torch.no_grad():  # the caller's own context is none of the model
            switched, report = switch(model, noise(2, 4, 7, 7))
        assert list(report.branches.values()) == ['the code of Held runs in a context, such as autocast or no_grad']
        assert report.num_norms_left == 0
        assert type(switched[0] if is_called else switched) is Held

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    def test_a_decorated_forward(self, make):
        class Frozen(Branches):
            forward = torch.no_grad()(Branches.forward)

        switched, report = switch(make(nn.Sequential(Frozen(*branches()), nn.ReLU())), noise(2, 4, 7, 7))
        assert report.num_branches_left == 1
        assert not switched(noise(2, 4, 7, 7)).requires_grad


class TestTypes:
    def test_torch_may_ask_for_the_type_of_a_size(self, make):
        model = nn.Sequential(Branches(*branches()), SqueezeExcite(4), *branches())
        assert not switch(make(model), noise(2, 4, 7, 7))[1].not_followed

    def test_a_package_whose_name_begins_with_torch_is_not_torch(self, make):
        names = {'__name__': 'torchlike.blocks', 'Branches': Branches, 'torch': torch}
        exec(
            'class Block(Branches):\n'
            '    def forward(self, x):\n'
            '        return Branches.forward(self, x) if isinstance(x, torch.Tensor) else x',
            names,
        )
        switch(make(nn.Sequential(nn.ReLU(), names['Block'](*branches()))), noise(2, 4, 7, 7))
        switch(make(names['Block'](*branches())), noise(2, 4, 7, 7))

    def test_the_code_may_not(self, make):
        class Matched(Branches):
            def forward(self, x):
                match x:
                    case torch.Tensor():
                        return super().forward(x)
                return x

        for kind in (Typed, Matched):
            _, report = switch(make(nn.Sequential(nn.ReLU(), kind(nn.BatchNorm2d(4)))), noise(2, 4, 7, 7))
            assert report.num_norms_left == 1


class TestModulesAround:
    def test_a_block_that_takes_a_list_is_followed_beside_one_that_is_not(self, make):
        """As in decoders: by itself nothing tells how long the list is."""

        class Decoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.ModuleList([Branches(*branches()) for _ in range(2)])
                self.act = nn.ReLU(inplace=True)

            def forward(self, features):
                x = features[-1]
                for skip, block in zip(features[:-1], self.blocks, strict=True):
                    x = self.act(block(x)) + skip
                return x

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.typed, self.decoder = Branches(*branches()), Typed(*branches()), Decoder()

            def forward(self, x):
                one = self.stem(x)
                return self.decoder([x, one, self.typed(one.sin())])

        _, report = switch(make(Model()), noise(2, 4, 7, 7))
        assert report.num_convs == (8, 5)  # all but the branches of Typed
        assert report.num_norms_left == 0


class TestOverwritten:
    def block(self, forward):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.act = *branches(), nn.ReLU(inplace=True)

        Block.forward = forward
        return Block()

    def test_after_the_branches_have_read_it(self, make):
        def forward(self, x):
            x = x * x
            return self.one(x) + self.two(x) + self.act(x)

        assert switch(make(self.block(forward)), noise(2, 4, 7, 7) - 0.5)[1].num_convs == (2, 1)

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    def test_between_the_branches(self, make):
        def forward(self, x):
            x = x.sin()
            one = self.one(x)
            self.act(x)
            return one + self.two(x)

        _, report = switch(make(self.block(forward)), noise(2, 4, 7, 7) - 0.5)
        assert list(report.branches.values()) == ['a value that it takes is overwritten meanwhile']
        assert report.num_norms_left == 0

    def test_between_a_norm_and_the_convolution_behind_it(self, make):
        """The one layer stands where the convolution stood, and reads the value later than the norm did."""

        def forward(self, x):
            x = x.sin()
            y = self.two[1](x)
            self.act(x)
            return self.two[0](y) * x

        _, report = switch(make(self.block(forward)), noise(2, 4, 7, 7) - 0.5)
        assert report.num_norms_left == 1

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    def test_by_the_sum_itself(self, make):
        def forward(self, x):
            x = x.sin()
            y = x
            x += self.one(x)
            return x * y

        _, report = switch(make(self.block(forward)), noise(2, 4, 7, 7) - 0.5)
        assert report.num_branches_left == 1


class TestLayersOfOtherKinds:
    @pytest.mark.parametrize('size', [8, 9])
    @pytest.mark.parametrize('padding', [(0, 1, 0, 1), (1, 0, 1, 0)])
    def test_padding_on_one_side(self, make, size, padding):
        """As in networks from TensorFlow: a 3x3 with stride 2 shows it in images of even size only."""

        class Same(nn.Conv2d):
            def __init__(self, *args):
                super().__init__(*args, stride=2, bias=False)
                self.static_padding = nn.ZeroPad2d(padding)

            def forward(self, x):
                return F.conv2d(self.static_padding(x), self.weight, self.bias, self.stride)

        model = make(nn.Sequential(Same(3, 4, 3), nn.BatchNorm2d(4)))
        switched, report = switch(model, noise(2, 3, size, size))
        assert report.num_norms_left == 0
        assert isinstance(switched[0], Same)

    def test_code_without_source_that_reads_the_stride(self, make):
        names = {}
        exec('def forward(self, x):\n    return self.b(self.a(x)) * self.b.stride[0]', names)  # as a notebook does

        class Reading(nn.Module):
            forward = names['forward']

            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Conv2d(4, 4, 1, stride=2, bias=False), nn.Conv2d(4, 4, 3)

        switch(make(Reading()), noise(2, 4, 9, 9))


def test_two_patterns_of_the_same_layers_are_told_apart(make):
    """A factor before the layers, and another one behind them: each gives a pattern with the same names."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)

        def forward(self, x):
            return self.conv(self.norm(x) * 3)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner = nn.Conv2d(4, 4, 5, padding=2, bias=False), Inner()

        def forward(self, x):
            x = x.relu()
            return self.inner(self.conv(x + x))

    assert switch(make(Outer()), noise(2, 4, 7, 7) - 0.5)[1].num_norms_left == 0


class NormAndPad(nn.Module):
    """As in the authors' diverse branch block: pads with what the norm makes of zeros."""

    def __init__(self, channels, pad, border=None):
        super().__init__()
        self.bn, self.pad, self.border = nn.BatchNorm2d(channels), pad, border

    def forward(self, x):
        y = F.pad(self.bn(x), [self.pad] * 4)
        zeros = torch.zeros_like(x[:, :, :1, :1]) if self.border is None else x[:, :, :1, :1]
        border = self.bn(zeros)
        for part in (y[:, :, : self.pad], y[:, :, -self.pad :], y[..., : self.pad], y[..., -self.pad :]):
            part[:] = border
        return y


class TestNormsThatPad:
    def test_branches(self, make):
        block = Branches(
            conv_norm(8, 8, 5, padding=2, groups=2),
            nn.Sequential(nn.Conv2d(8, 6, 1, bias=False), NormAndPad(6, 2), *conv_norm(6, 8, 5)),
            nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), NormAndPad(8, 2), nn.AvgPool2d(5, 1), nn.BatchNorm2d(8)),
        )
        _, report = switch(make(block), noise(2, 8, 9, 6))
        assert report.num_convs == (4, 1)
        assert report.num_norms_left == report.num_branches_left == 0
        assert not report.not_followed

    def test_those_that_pad_with_something_else_stay(self, make):
        model = nn.Sequential(nn.Conv2d(8, 6, 1, bias=False), NormAndPad(6, 2, border='x'), nn.Conv2d(6, 8, 5))
        _, report = switch(make(model), noise(2, 8, 9, 6))
        assert report.num_norms_left == 1
        assert list(report.not_followed) == ['1']

    def test_hooks_on_the_norm_within(self, make):
        model = make(nn.Sequential(nn.Conv2d(8, 6, 1, bias=False), NormAndPad(6, 2), nn.Conv2d(6, 8, 5)))
        model[1].bn.register_forward_hook(lambda *_: None)
        assert switch(model, noise(2, 8, 9, 6))[1].num_norms_left == 1


def test_weights_of_zeros_tell_nothing_of_a_layer(make):
    """A form without weights has the same structure as that of a trained model."""

    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    model = make(nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4)))
    empty = copy.deepcopy(model)
    empty[0].weight.data.zero_()
    switched, x = reparameterize(model), noise(2, 3, 9, 9)
    form = reparameterize(empty)
    form.load_state_dict(switched.state_dict())
    torch.testing.assert_close(form(x), model(x), atol=1e-10, rtol=0)


class Penalised(Branches):
    """As in the authors' RepVGGplus: each block adds a penalty on its weights to that of those before it."""

    def forward(self, x, penalty):
        conv, norm = self.branches[0]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return super().forward(x), penalty + (conv.weight * scale.detach().view(-1, 1, 1, 1)).square().sum()


class TestWeightsThatCodeReads:
    def model(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = Penalised(*branches()), Penalised(*branches())

            def forward(self, x):
                x, penalty = self.one(x, 0.0)
                return self.two(x, penalty=penalty)

        return Model()

    def test_a_penalty_stays_what_it_was(self, make):
        model, x = make(self.model()), noise(2, 4, 7, 7)
        switched, report = reparameterize(model, return_report=True)
        assert report.num_convs == (4, 2)
        assert report.num_norms_left == report.num_branches_left == 0
        for before, after in zip(model(x), switched(x), strict=True):
            torch.testing.assert_close(after, before, atol=1e-10, rtol=0)
        fresh = reparameterize(self.model().double().eval())
        fresh.load_state_dict(switched.state_dict())
        torch.testing.assert_close(fresh(x)[1], model(x)[1], atol=1e-10, rtol=0)

    def test_a_kernel_that_is_used_twice_stays(self, make):
        class Tied(Branches):
            def forward(self, x):
                return super().forward(x) + F.conv2d(x.sin(), self.branches[0][0].weight, padding=1)

        _, report = switch(make(Tied(*branches())), noise(2, 4, 7, 7))
        assert report.left['branches.0.0'] == 'the weights of the layer are read by other code, too'
        assert report.num_convs == (2, 2)

    def test_a_number_that_other_code_computes(self, make):
        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = nn.Sequential(Branches(*branches()), nn.ReLU())

            def forward(self, x):
                return self.block(x) * self.block[0].branches[0][0].weight.sum()

        switch(make(Around()), noise(2, 4, 7, 7))

    def test_a_stride_that_changed_code_has_read(self, make):
        class Strided(Branches):
            def forward(self, x):
                return super().forward(x) * self.branches[0][0].padding[0]

        assert switch(make(Strided(*branches())), noise(2, 4, 7, 7))[1].num_convs == (2, 1)
