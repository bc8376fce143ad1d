"""What fusing does to one family: counts, differences, speed."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmrepvgg import reparameterize
from mmrepvgg.measures.difference import Difference, join_outputs
from mmrepvgg.measures.timing import summarise, time_interleaved
from mmrepvgg.models.complexity import count_params

from .families import Family
from .statistics import randomise


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        params: Number of parameters, before and after.
        report: What ``reparameterize`` says.
        difference: Largest difference in float32, relative to the largest output.
        difference64: The same in float64.
        times: Median seconds for one image, before and after.
    """

    params: tuple[int, int]
    report: Any
    difference: float
    difference64: float
    times: tuple[float, float]


@torch.no_grad()
def measure(family: Family, image: int, repeats: int) -> Measurement:
    """Fuse a network with random weights and statistics, and run both forms."""
    torch.manual_seed(0)
    model = family.build()
    model.eval()
    x = torch.randn(2, 3, image, image)
    randomise(model, x)
    fused, report = reparameterize(model, return_report=True)
    runs = [partial(each, x[:1]) for each in (model, fused)]
    before, after = (summarise(times).median for times in time_interleaved(runs, repeats, warm_up=5, budget=10))
    return Measurement(
        params=(count_params(model), count_params(fused)),
        report=report,
        difference=compare(model, fused, x),
        difference64=compare_in_float64(model, x),
        times=(before, after),
    )


def compare(model: nn.Module, fused: nn.Module, x: Tensor) -> float:
    """The largest difference between both outputs for ``x``, relative to the largest output."""
    difference = Difference()
    difference.add(join_outputs(model(x)), join_outputs(fused(x)))
    return difference.relative


def compare_in_float64(model: nn.Module, x: Tensor) -> float:
    """The same for ``model`` and ``x`` as float64, fused anew."""
    double = copy.deepcopy(model).double()
    return compare(double, reparameterize(double), x.double())
