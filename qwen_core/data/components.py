"""From equal hashes to clusters of duplicates, and which document of each cluster stays.

    keys ─▶ chain_edges ─▶ contract, partition by partition ─▶ components ─▶ keepers
                                            └─▶ large_star, small_star, in turn, where one task cannot hold all edges

A document is a number (int64) that tells its place, so that a smaller one came first; an edge says that two documents
belong together. Whatever the order and the partition of the edges, the clusters are the same, for all that is returned
is a function of the set of edges.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from qwen_core.data.characters import mix

Ints = npt.NDArray[np.int64]
Edges = tuple[Ints, Ints]


def chain_edges(keys: npt.NDArray[np.uint64], numbers: Ints) -> Edges:
    """Link documents with the same key, each to the next: a bucket of a million gives a million edges, not pairs.

    Args:
        keys: Hashes of bands or texts, in any order, [K].
        numbers: Document of each key, [K]; a document may have a key twice.

    Returns:
        Edges from smaller to larger numbers, sorted by key.
    """
    order = np.lexsort((numbers, keys))
    keys, numbers = keys[order], numbers[order]
    linked = (keys[1:] == keys[:-1]) & (numbers[1:] != numbers[:-1])
    return numbers[:-1][linked], numbers[1:][linked]


def components(left: Ints, right: Ints) -> tuple[Ints, Ints]:
    """Find the connected components of a graph.

    Args:
        left: One end of each edge, [E].
        right: The other, [E].

    Returns:
        All documents that have an edge, rising [M], and the smallest of each one's component [M].
    """
    nodes, places = np.unique(np.concatenate((left, right)), return_inverse=True)
    weights = np.ones(len(left), np.int8)
    graph = coo_array((weights, (places[: len(left)], places[len(left) :])), shape=(len(nodes), len(nodes)))
    count, found = connected_components(graph, directed=False)
    smallest = np.zeros(count, np.int64)
    smallest[found[::-1]] = nodes[::-1]  # written from the largest down: what stays is the smallest
    return nodes, smallest[found]


def contract(left: Ints, right: Ints) -> Edges:
    """Replace edges by the fewest that connect the same documents, each to the smallest of its component.

    Done to every partition before edges travel, it leaves less than one edge for each document in it.

    Args:
        left: One end of each edge, [E].
        right: The other, [E].

    Returns:
        Edges from a document to the smallest one, rising, no two alike.
    """
    nodes, smallest = components(left, right)
    linked = nodes != smallest
    return nodes[linked], smallest[linked]


def both_ways(left: Ints, right: Ints) -> Edges:
    """List each edge from both ends, as `large_star` needs it.

    Args:
        left: One end of each edge, [E].
        right: The other, [E].

    Returns:
        A document and its neighbour, [2 * E]: to be partitioned by the first.
    """
    return np.concatenate((left, right)), np.concatenate((right, left))


def large_star(document: Ints, neighbour: Ints) -> Edges:
    """Link the larger neighbours of each document to the smallest one around it (Kiveris et al., 2014, section 3).

    In turn with `small_star` over all partitions, until `digest` of the edges stays the same, it leaves each document
    linked to the smallest of its component: in the order of log^2 rounds of the number of documents, by the paper.

    Args:
        document: All edges of a document in one partition, as `both_ways` lists them, [E].
        neighbour: The other end, [E].

    Returns:
        Edges from a larger to a smaller number, no two alike: to be partitioned by the first for `small_star`.
    """
    document, neighbour = _sorted(document, neighbour)
    smallest = np.minimum(document, _group_minimum(document, neighbour))
    larger = neighbour > document
    return _distinct(neighbour[larger], smallest[larger])


def small_star(document: Ints, neighbour: Ints) -> Edges:
    """Link each document and its smaller neighbours to the smallest of them (Kiveris et al., 2014, section 3).

    Args:
        document: The larger end of each edge, all of a document's in one partition, [E].
        neighbour: The smaller end, [E].

    Returns:
        Edges from a larger to a smaller number, no two alike.
    """
    document, neighbour = _sorted(document, neighbour)
    smallest = _group_minimum(document, neighbour)
    linked = neighbour != smallest
    return _distinct(np.concatenate((document, neighbour[linked])), np.concatenate((smallest, smallest[linked])))


def digest(left: Ints, right: Ints) -> int:
    """Sum up a partition's edges in one number; the sum over all partitions tells whether a round changed anything.

    Args:
        left: One end of each edge, [E].
        right: The other, [E].

    Returns:
        Below 2^64, the same in any order of the edges.
    """
    return int(mix(mix(left.astype(np.uint64)) ^ right.astype(np.uint64)).sum(dtype=np.uint64))


def keepers(nodes: Ints, smallest: Ints, quality: npt.NDArray[np.floating], length: Ints) -> tuple[Ints, Ints]:
    """Choose the document of each cluster that stays: the best quality, then the longest, then the first.

    Args:
        nodes: Documents, [M].
        smallest: What marks each one's cluster, [M].
        quality: Scores, compared to three decimals, [M]; NaN is the lowest.
        length: Of the texts, in bytes or characters, [M].

    Returns:
        The documents that are dropped, rising [D], and for each the one that stays in its place [D].
    """
    order = np.lexsort((nodes, -length, -np.round(quality, 3), smallest))
    begins = _begins(smallest[order])
    ranked = nodes[order]
    stays = np.repeat(ranked[begins], np.diff(np.append(begins, len(nodes))))
    dropped = np.flatnonzero(ranked != stays)
    dropped = dropped[np.argsort(ranked[dropped])]
    return ranked[dropped], stays[dropped]


def _sorted(document: Ints, neighbour: Ints) -> Edges:
    order = np.argsort(document, kind="stable")
    return document[order], neighbour[order]


def _begins(groups: npt.NDArray[np.generic]) -> Ints:
    """Find where each group begins in what is sorted by group."""
    return np.flatnonzero(np.concatenate((np.ones(min(1, len(groups)), bool), groups[1:] != groups[:-1])))


def _group_minimum(document: Ints, neighbour: Ints) -> Ints:
    """Find the smallest neighbour of each edge's document, [E]."""
    if not len(document):
        return neighbour
    begins = _begins(document)
    sizes = np.diff(np.append(begins, len(document)))
    return np.repeat(np.minimum.reduceat(neighbour, begins), sizes)


def _distinct(left: Ints, right: Ints) -> Edges:
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    first = np.concatenate((np.ones(min(1, len(left)), bool), (left[1:] != left[:-1]) | (right[1:] != right[:-1])))
    return left[first], right[first]
