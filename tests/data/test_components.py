"""Components: equal to a plain search on any graph, in one task or over partitions; the best of each cluster stays."""

import numpy as np
import pytest

from qwen_core.data.components import (
    both_ways,
    chain_edges,
    components,
    contract,
    digest,
    keepers,
    large_star,
    small_star,
)

PARTITIONS = 7


def _partitioned(operation, left, right):
    """Apply an operation to each partition by the first document, as a shuffle would."""
    parts = [operation(left[left % PARTITIONS == part], right[left % PARTITIONS == part]) for part in range(PARTITIONS)]
    return tuple(np.concatenate(side) for side in zip(*parts, strict=True))


def _stars(left, right):
    """Alternate the stars until nothing changes; return the edges and the number of rounds."""
    left, right = _partitioned(contract, left, right)
    before, rounds = None, 0
    while (now := digest(left, right)) != before:
        before, rounds = now, rounds + 1
        left, right = _partitioned(large_star, *both_ways(left, right))
        left, right = _partitioned(small_star, left, right)
    return left, right, rounds


def _searched(left, right):
    """Find components by walking from document to document."""
    around = {}
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    found = {}
    for start in sorted(around):
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = start
                waiting += around[node]
    return found


def _graphs():
    rng = np.random.default_rng(1)
    for nodes, edges in ((10, 3), (100, 60), (100, 300), (2000, 1900), (5000, 1000)):
        numbers = rng.choice(2**40, nodes, replace=False)
        yield f"random {nodes} {edges}", numbers[rng.integers(0, nodes, edges)], numbers[rng.integers(0, nodes, edges)]
    path = rng.permutation(3000)
    yield "path", np.arange(2999), np.arange(1, 3000)
    yield "shuffled path", path[:-1], path[1:]
    yield "star around the largest", np.full(2000, 10**9), np.arange(2000)
    yield "loop", np.array([5, 7]), np.array([5, 5])
    yield "nothing", np.zeros(0, np.int64), np.zeros(0, np.int64)


@pytest.mark.parametrize(("left", "right"), [pytest.param(*sides, id=name) for name, *sides in _graphs()])
def test_components_are_those_of_a_plain_search_in_one_task_and_over_partitions(left, right):
    nodes, smallest = components(left, right)
    assert dict(zip(nodes.tolist(), smallest.tolist(), strict=True)) == _searched(left, right)
    assert (np.diff(nodes) > 0).all()
    star_left, star_right, rounds = _stars(left, right)
    linked = {(a, b) for a, b in zip(nodes.tolist(), smallest.tolist(), strict=True) if a != b}
    assert set(zip(star_left.tolist(), star_right.tolist(), strict=True)) == linked
    assert rounds <= 20


def test_a_bucket_is_a_chain_whatever_the_order():
    keys, numbers = np.array([9, 4, 9, 9, 4, 1, 9], np.uint64), np.array([30, 2, 10, 20, 1, 5, 10])
    left, right = chain_edges(keys, numbers)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(1, 2), (10, 20), (20, 30)]
    order = np.random.default_rng(0).permutation(7)
    again = chain_edges(keys[order], numbers[order])
    assert (again[0] == left).all() and (again[1] == right).all()


def test_contracted_edges_are_fewest_and_join_the_same():
    rng = np.random.default_rng(2)
    left, right = rng.integers(0, 50, 400), rng.integers(0, 50, 400)
    fewer = contract(left, right)
    nodes, smallest = components(left, right)
    again = components(*fewer)
    assert (again[0] == nodes).all() and (again[1] == smallest).all()
    assert len(fewer[0]) == len(nodes) - len(np.unique(smallest))


@pytest.mark.slow
def test_a_cluster_of_a_million_is_found_in_seconds():
    count = 1_000_000
    numbers = np.random.default_rng(3).permutation(count)
    left, right = chain_edges(np.full(count, 5, np.uint64), numbers)
    assert len(left) == count - 1
    _, smallest = components(left, right)
    assert len(smallest) == count and not smallest.any()
    star_left, star_right, _ = _stars(numbers[:-1], numbers[1:])
    assert len(star_left) == count - 1 and not star_right.any()


def test_digest_does_not_depend_on_order_but_on_every_edge():
    left, right = np.array([5, 7, 9]), np.array([1, 1, 2])
    assert digest(left, right) == digest(left[::-1], right[::-1])
    assert digest(left, right) == (digest(left[:1], right[:1]) + digest(left[1:], right[1:])) % 2**64
    assert digest(left, right) != digest(left, np.array([1, 2, 1]))


def test_best_quality_then_longest_then_first_stays():
    nodes = np.array([1, 2, 3, 4, 5, 6, 8, 9])
    clusters = np.array([1, 1, 1, 4, 4, 6, 8, 8])
    quality = np.array([0.1, 0.9, 0.9004, 0.5, 0.5, 0.0, np.nan, 0.0])
    dropped, stays = keepers(nodes, clusters, quality, np.array([9, 5, 7, 3, 3, 1, 9, 1]))
    assert dropped.tolist() == [1, 2, 5, 8]
    assert stays.tolist() == [3, 3, 4, 9]


def test_nothing_to_drop_is_nothing_dropped():
    none = np.zeros(0, np.int64)
    dropped, stays = keepers(none, none, none.astype(float), none)
    assert len(dropped) == len(stays) == 0
