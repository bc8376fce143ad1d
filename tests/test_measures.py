"""Accuracy, agreement and difference: what every report of the package counts with."""

import math

import pytest
import torch

from mmrepvgg.measures.accuracy import Tally, measure_percent
from mmrepvgg.measures.difference import Difference
from mmrepvgg.measures.finite import is_finite
from mmrepvgg.tables import format_table

SCORES = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])


class TestAccuracy:
    def test_against_labels(self):
        assert measure_percent(SCORES, torch.tensor([1, 0, 0, 0])) == 75.0

    def test_against_the_scores_of_another_model(self):
        assert measure_percent(SCORES, SCORES.flip(1)) == 25.0  # equal scores are the lower class in both

    def test_batches_add_up(self):
        tally = Tally()
        for batch in torch.arange(4).split([3, 1]):
            tally.add(SCORES[batch], torch.tensor([1, 0, 0, 0])[batch])
        assert (tally.num_equal, tally.num_images, tally.percent) == (3, 4, 75.0)

    def test_no_image_is_no_accuracy(self):
        assert math.isnan(Tally().percent)


class TestDifference:
    def test_is_relative_to_the_largest_output_of_all_batches(self):
        difference = Difference()
        difference.add(torch.tensor([[1.0, -2.0]]), torch.tensor([[1.5, -2.0]]))
        difference.add(torch.tensor([[4.0, 0.0]]), torch.tensor([[4.0, 0.1]]))
        assert (difference.largest, difference.largest_output, difference.num_inputs) == (0.5, 4.0, 2)
        assert difference.relative == 0.125
        assert difference.exceeds(0.12)
        assert not difference.exceeds(0.125)

    @pytest.mark.parametrize('value', [float('nan'), float('inf')])
    @pytest.mark.parametrize('is_expected', [False, True])
    def test_what_is_not_finite_exceeds_every_tolerance(self, value, is_expected):
        good, bad = torch.tensor([[1.0]]), torch.tensor([[value]])
        difference = Difference()
        difference.add(good, good)
        difference.add(*((bad, good) if is_expected else (good, bad)))
        difference.add(good, good)
        assert math.isnan(difference.relative)
        assert difference.exceeds(1e9)

    @pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_one_number_that_is_not_finite_is_found_wherever_it_is(self, dtype):
        numbers = torch.linspace(-1, 1, 77, dtype=dtype)
        assert is_finite(numbers)
        assert is_finite(numbers[:0])
        for place in range(77):
            for value in (math.nan, math.inf, -math.inf):
                numbers = torch.linspace(-1, 1, 77, dtype=dtype)
                numbers[place] = value
                assert not is_finite(numbers), (place, value)

    def test_outputs_of_zeros(self):
        difference = Difference()
        difference.add(torch.zeros(1, 2), torch.full((1, 2), 0.5))
        assert difference.relative == 0.5


def test_a_table_is_aligned():
    assert format_table(['form', 'top-1'], [['train', '99.17%'], ['x', 7]], left=1) == '\n'.join(
        [
            '| form  |  top-1 |',
            '|-------|-------:|',
            '| train | 99.17% |',
            '| x     |      7 |',
        ]
    )
