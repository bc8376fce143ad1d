"""Both forms of random blocks and networks are the same function. A failing case is printed, and is reproducible."""

import copy

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from tool_runs import run_tool

from mmrepvgg import reparameterize
from studies.exactness.cases import BLOCKS, NETWORKS, make_block, make_network, measure_terms, split_block

# In float64. For a block: of the absolute values of all that is summed up in a channel, which is what rounding errors
# are in proportion to. For a network: of the largest output of a stage.
BLOCK_TOLERANCE, NETWORK_TOLERANCE = 1e-12, 1e-9


def cases(choices):
    return st.fixed_dictionaries({name: st.sampled_from(values) for name, values in choices.items()})


def try_cases(check, choices, number, **options):
    settings = hypothesis.settings(
        max_examples=number,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        **options,
    )
    settings(hypothesis.given(cases(choices))(check))()


def check_block(case):
    block, x = make_block(case)
    terms = measure_terms(block, x)
    expected_sum, expected = split_block(block, x)
    switched = copy.deepcopy(block)
    switched.switch_to_deploy()
    assert not {name for name, _ in switched.named_children()} - {'branch_reparam', 'se_layer', 'act'}
    actual_sum, actual = split_block(switched, x)
    difference = (actual_sum - expected_sum).abs().amax((0, 2, 3))
    assert (difference <= BLOCK_TOLERANCE * terms).all()
    # what follows the sum is exactly the same: SE may enlarge a difference of the sum by much
    for sums, output in ((expected_sum, expected), (actual_sum, actual)):
        layers = [block.se_layer, block.act]
        for layer in reversed(layers) if case['se'] == 'after' else layers:
            sums = layer(sums.clone())
        assert torch.equal(sums, output)


def check_network(case):
    network, x = make_network(case)
    with torch.no_grad():
        for expected, actual in zip(network(x), reparameterize(network)(x), strict=True):
            hypothesis.assume(expected.abs().max() > 0)  # a narrow network may be dead
            assert (actual - expected).abs().max() <= NETWORK_TOLERANCE * expected.abs().max()


def test_random_blocks():
    try_cases(check_block, BLOCKS, 200, derandomize=True)


def test_random_networks():
    try_cases(check_network, NETWORKS, 20, derandomize=True)


@pytest.mark.deep
def test_many_random_blocks():
    try_cases(check_block, BLOCKS, 10_000)


@pytest.mark.deep
def test_many_random_networks():
    try_cases(check_network, NETWORKS, 500)


def test_the_tool_measures_what_can_be_computed(tmp_path):
    done = run_tool('exactness', '--cases', '20', '--networks', '3', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in done.stdout.splitlines()[2:23]]
    assert len(rows) == 21
    # a form in float64, then the train form and the deploy form in each precision
    largest = {'float64': 1e-12, 'float32': 1e-5, 'bfloat16': 0.1, 'float16': 0.01}
    for title, dtype, form, compared, median, *_, highest, overflow in rows:
        assert int(compared) == (3 if title == 'networks' else 20)
        if 'to 1e6' not in title:
            assert 0 < float(median) <= float(highest) < largest[dtype], (title, dtype, form)
            assert overflow == '0'
