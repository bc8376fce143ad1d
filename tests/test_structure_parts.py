"""Models of all kinds: parts with code of their own, parts of what stays, and the reasons."""

import pytest
import torch
import torch.nn.functional as F
from switching import Branches, branches, conv_norm, noise, switch
from torch import nn


class TestOfAllKinds:
    def test_branches_with_synchronised_norms(self, make):
        """They take any number of axes, so the branches around them tell."""
        block = Branches(nn.BatchNorm2d(4), *branches())
        model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.ReLU(), block))
        assert switch(make(model), noise(2, 4, 7, 7))[1].num_convs == (2, 1)

    def test_a_container_with_code_of_its_own(self, make):
        class Block(nn.ModuleList):
            def forward(self, x):
                return sum(branch(x) for branch in self)

        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Block(branches())

            def forward(self, x):
                return self.block(x) if x.shape[0] else x

        assert switch(make(Block(branches())), noise(2, 4, 7, 7))[1].num_convs == (2, 1)
        assert switch(make(Around()), noise(2, 4, 7, 7))[1].num_convs == (2, 1)

    def test_a_block_that_adds_is_named_if_it_can_not_be_followed(self, make):
        class Sized(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = branches()

            def forward(self, x):
                return self.one(x) + self.two(x) if x.shape[2] > 3 else self.one(x)

        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.block, self.num = Sized(), 3

            def forward(self, x):
                number = self.num + 1
                return self.block(x) if x.shape[2] > number else x

        _, report = switch(make(nn.Sequential(Around(), nn.ReLU())), noise(2, 4, 7, 7))
        assert list(report.not_followed) == ['0.block']
        assert report.num_norms_left == 0

    @pytest.mark.parametrize('alpha', [1.0, 0.0])
    def test_a_factor_that_the_code_asks_for(self, make, alpha):
        """A parameter counts as true, unless it is 0."""

        class Factor(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = branches()
                self.alpha = nn.Parameter(torch.full((1,), alpha))

            def forward(self, x):
                return self.one(x) + (self.alpha * self.two(x) if self.alpha else self.two(x))

        _, report = switch(make(nn.Sequential(Factor(), nn.ReLU())), noise(2, 4, 7, 7))
        assert report.num_convs == (2, 1 if alpha else 2)
        assert list(report.not_followed) == ([] if alpha else ['0'])

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    @pytest.mark.parametrize('num_calls', [1, 2])
    def test_parts_that_give_several_values(self, make, num_calls):
        """By themselves, nothing tells how many."""

        class Pair(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = Branches(*branches()), nn.Conv2d(4, 4, 1)

            def forward(self, x):
                return [self.one(x), self.two(x)]

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.pair, self.one, self.two = Pair(), *branches()

            def forward(self, x):
                for _ in range(num_calls):
                    x = torch.cat([each.relu() for each in self.pair(x)], 2)
                return self.one(x) + self.two(x)

        _, report = switch(make(Model()), noise(2, 4, 7, 7))
        own = [name for name in report.branches if not name.startswith('pair')]
        assert len(own) == 1
        assert report.num_convs == (5, 4)

    def test_modules_that_the_code_makes(self, make):
        """As the stages of older encoders of segmentation_models."""

        class Stages(nn.Module):
            def __init__(self):
                super().__init__()
                self.block, self.conv = Branches(*branches()), nn.Conv2d(4, 4, 3)

            def forward(self, x):
                for stage in (nn.Identity(), nn.Sequential(self.block, self.conv)):
                    x = stage(x)
                return x

        assert switch(make(Stages()), noise(2, 4, 7, 7))[1].num_convs == (3, 2)

    def test_sizes_of_weights_are_known(self, make):
        """The authors' OREPA counts with them."""

        class Computed(nn.Module):
            def __init__(self):
                super().__init__()
                self.depth, self.point = nn.Parameter(torch.rand(8, 1, 3, 3)), nn.Parameter(torch.rand(6, 8, 1, 1))
                self.norm = nn.BatchNorm2d(6)

            def forward(self, x):
                outputs, inputs, _, _ = self.point.size()
                depth = self.depth.squeeze(1).view(4, int(inputs / 4), *self.depth.shape[2:])
                kernel = torch.einsum('gthw,ogt->oghw', depth, self.point.view(outputs, 4, -1))
                return self.norm(F.conv2d(x, kernel, padding=kernel.shape[-1] // 2))

        assert switch(make(Computed()), noise(2, 4, 7, 7))[1].num_norms_left == 0

    def test_heads_that_only_the_training_calls(self, make):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                act = nn.ReLU()
                self.body = nn.Sequential(conv_norm(4, 4, 3), act)
                self.head = nn.Sequential(conv_norm(4, 4, 1), act)

            def forward(self, x):
                x = self.body(x)
                return (x, self.head(x)) if self.training else x

        switched, report = switch(make(Model()), noise(2, 4, 7, 7))
        assert report.num_norms_left == 0
        assert switched.train()(noise(2, 4, 7, 7))[1].shape == (2, 4, 5, 5)


class TestPartsOfWhatStays:
    """Of a pattern in code that can't be changed, the parts that stand in other code are fused all the same."""

    def model(self, forward, **parts):
        class Model(nn.Module):
            def head(self, x):
                return self.norm(self.block(x))

        model = Model()
        model.block, model.norm = Branches(*branches(), act=False), nn.BatchNorm2d(4)
        for name, part in parts.items():
            model.add_module(name, part)
        type(model).forward = forward
        return model

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    def test_a_block_before_a_norm(self, make):
        def steered(self, x, double=False):
            return self.norm(self.block(x)) * (2 if double else 1)

        def method(self, x):
            return self.head(x).relu()

        for forward in (steered, method):
            _, report = switch(make(self.model(forward)), noise(2, 4, 7, 7))
            assert report.num_convs == (2, 1)
            assert report.num_branches_left == 0

    @pytest.mark.filterwarnings('ignore:.* parallel linear branches')
    def test_one_sum_is_told_once(self, make):
        def steered(self, x, double=False):
            return self.norm(self.one(x) + self.two(x) + x) * (2 if double else 1)

        one, two = branches()
        _, report = switch(make(self.model(steered, one=one, two=two)), noise(2, 4, 7, 7))
        assert len(report.branches) == 1
        assert 'an argument of `forward`' in next(iter(report.branches.values()))

    def test_a_norm_behind_a_method(self, make):
        """Of a model any method may be called; of a part, those that are named for it. DenseNet's is not."""

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        class Inner(Block):
            def bn_function(self, x):
                return self.conv(x)

            def forward(self, x):
                return self.norm(self.bn_function(x))

        class Outer(Block):
            def forward_features(self, x):
                return self.conv(x)

            def forward(self, x):
                return self.norm(self.forward_features(x))

        for kind, num_left in ((Inner, 0), (Outer, 1)):
            _, report = switch(make(nn.Sequential(kind(), nn.ReLU())), noise(2, 4, 7, 7))
            assert report.num_norms_left == num_left
            assert switch(make(kind()), noise(2, 4, 7, 7))[1].num_norms_left == 1

    def test_a_sequence_in_a_method(self, make):
        def forward(self, x):
            return self.call(x)

        model = self.model(forward, parts=nn.Sequential(Branches(*branches(), act=False), nn.BatchNorm2d(4)))
        type(model).call = lambda self, x: self.parts(x)
        del model.block, model.norm
        _, report = switch(make(model), noise(2, 4, 7, 7))
        assert report.num_convs == (2, 1)
        assert report.num_norms_left == 0

    def test_a_norm_has_the_reason_of_the_layer_before_it(self, make):
        def forward(self, x):
            return self.norm(self.conv(x)) + self.norm2(self.conv(x.sin()))

        model = self.model(forward, conv=nn.Conv2d(4, 4, 1), norm2=nn.BatchNorm2d(4))
        del model.block
        _, report = switch(make(model), noise(2, 4, 7, 7))
        assert set(report.left.values()) == {'the layer is called several times'}

    def test_what_is_fused_in_two_steps_is_one_line(self, make):
        def method(self, x):
            return self.head(x).relu()

        _, report = switch(make(self.model(method)), noise(2, 4, 7, 7))
        assert report.num_norms_left == 0
        (fused,) = report.fused
        assert fused.name == 'block.branches.0.0'
        assert {*fused.layers} - {'block.act'} == {f'block.branches.{i}.{j}' for i in (0, 1) for j in (0, 1)} | {'norm'}
