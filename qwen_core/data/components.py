"""From equal hashes to clusters of duplicates, and which document of each cluster stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = npt.NDArray[np.int64]


def cluster(keys: npt.NDArray[np.uint64]) -> Ints:
    """Join documents that share a key in any column.

    Args:
        keys: [documents, columns]; equal values in one column mean duplicates.

    Returns:
        Cluster of each document, [documents]; numbers have no meaning of their own.
    """
    count = len(keys)
    pairs = [_chains(keys[:, column]) for column in range(keys.shape[1])]
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def keep_best(
    clusters: Ints, quality: npt.NDArray[np.float64], length: Ints, ids: npt.NDArray[np.str_]
) -> npt.NDArray[np.bool_]:
    """Choose one document of each cluster: the best quality score, then the longest, then the smallest id.

    Args:
        clusters: Of each document.
        quality: Scores.
        length: Of the texts, in bytes.
        ids: Of the documents.

    Returns:
        Whether each document stays.
    """
    order = np.lexsort((ids, -length, -np.round(quality, 3), clusters))
    is_first = (
        np.concatenate(([True], clusters[order][1:] != clusters[order][:-1])) if len(order) else np.zeros(0, bool)
    )
    keep = np.zeros(len(clusters), dtype=bool)
    keep[order[is_first]] = True
    return keep


def _chains(keys: npt.NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Link each document to the next one with the same key: a cluster of a million gives a million links, not pairs."""
    order = np.argsort(keys, kind="stable")
    is_same = keys[order][1:] == keys[order][:-1]
    return order[:-1][is_same], order[1:][is_same]
