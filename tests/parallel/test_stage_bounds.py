"""Stages of equal work."""

import itertools

import pytest

from qwen_core.parallel.stage_bounds import balanced, stage_bounds, stage_costs
from tests.parallel.tiny import tiny_config


@pytest.mark.parametrize(
    ("costs", "parts", "bounds"),
    [
        ([0, 1, 1, 1, 0, 1], 2, [0, 3, 6]),
        ([0, 1, 1, 0, 9], 2, [0, 4, 5]),
        ([0, 1, 0, 0], 4, [0, 1, 2, 3, 4]),
        ([5, 5, 5], 1, [0, 3]),
    ],
)
def test_cuts_by_hand(costs, parts, bounds):
    found = balanced(costs, parts)
    assert found[0] == 0 and found[-1] == len(costs) and len(found) == parts + 1
    assert max(_sums(costs, found)) == max(_sums(costs, bounds))
    assert all(begin < end for begin, end in itertools.pairwise(found))


def test_no_other_cut_is_better():
    costs = [0, 3, 7, 2, 2, 8, 1, 0, 6]
    for parts in range(1, len(costs) + 1):
        cuts = itertools.combinations(range(1, len(costs)), parts - 1)
        best = min(max(_sums(costs, [0, *cut, len(costs)])) for cut in cuts)
        assert max(_sums(costs, balanced(costs, parts))) == best


def test_large_vocabulary_leaves_the_last_stage_fewer_layers():
    config = tiny_config(num_hidden_layers=8, vocab_size=1024)
    bounds = stage_bounds(config, 2)
    assert bounds[1] > 5 and bounds[-1] == 11


def test_experts_that_a_token_does_not_meet_cost_nothing():
    sparse = {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    dense, few = stage_costs(tiny_config()), stage_costs(tiny_config(**sparse))
    assert few[1] == dense[1] + 32 * 8  # two experts of half the width, and the router


def _sums(costs, bounds):
    return [sum(costs[begin:end]) for begin, end in itertools.pairwise(bounds)]
