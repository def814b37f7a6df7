"""Clusters of duplicates over a whole corpus: bands shuffled by hash inside Ray Data, then connected components.

    sketches ─▶ (key, document) ─▶ shuffle by key ─▶ links ─▶ few? one task
                                                          └▶ many? large-star, small-star in turn, shuffled by document

What a task holds is one partition; what comes back to the driver is sixteen bytes for each document that has a
duplicate, before it looks up more of it. A document's number is its part's place in the corpus and its row in the part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from qwen_core.data.characters import mix
from qwen_core.data.components import both_ways, chain_edges, components, contract, digest, large_star, small_star
from qwen_core.parts import read_rows

Ints = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

RowsOf = Callable[[str, int], pa.Table]
Together = Callable[[pa.Table], pa.Table]

ROW_BITS = 32
"""A document's number is `part << ROW_BITS | row`."""

_NO_LINK = -1
_BAND_STEP = 0x9E3779B97F4A7C15
_PARTITION_ROWS = 2_500_000  # rows of 24 bytes in one task of the shuffle
_MAX_LINKS = 20_000_000  # beyond, no single task joins them: it takes about 100 bytes for each
_MAX_ROUNDS = 64


@dataclass(frozen=True)
class Clusters:
    """Documents that have a duplicate.

    Attributes:
        nodes: Their numbers, rising.
        labels: The smallest number in the cluster of each.
    """

    nodes: Ints
    labels: Ints


def find_clusters(sketches: Sequence[str], rows: int, keys: int, max_links: int = _MAX_LINKS) -> Clusters:
    """Join all documents that agree in a key.

    Args:
        sketches: Files with `exact` and `bands`, in the order of the parts.
        rows: Documents in all.
        keys: Keys of each document: its bands and its exact hash.
        max_links: Above it the components are found over many tasks.

    Returns:
        The clusters; the same whatever the number of workers.
    """
    links = by_key(sketches, _keys_of, _links, "key", -(-rows * keys // _PARTITION_ROWS)).materialize()
    count = links.count()
    if count > max_links:
        links = _join_apart(links, max(2, -(-count // _PARTITION_ROWS)))
    return Clusters(*components(*collect(links, left=np.int64, right=np.int64)))


def by_key(files: Sequence[str], rows_of: RowsOf, together: Together, key: str, partitions: int) -> ray.data.Dataset:
    """Bring rows of all parts of a corpus together by a key, and apply a function to each partition of them.

    Args:
        files: Of the parts, in the corpus's order.
        rows_of: Makes rows of a file and the number of its part.
        together: Called with rows of which no others have the same keys.
        key: Column that decides which rows come together.
        partitions: Tasks; for one or fewer nothing is shuffled, which would only take its seconds.

    Returns:
        What `together` gave.
    """

    def rows(batch: pa.Table) -> pa.Table:
        pairs = zip(batch["file"].to_pylist(), batch["part"].to_pylist(), strict=True)
        return pa.concat_tables([rows_of(file, part) for file, part in pairs])

    listed = pa.table({"file": list(files), "part": np.arange(len(files))})
    if partitions <= 1:
        return ray.data.from_arrow(ray.get(ray.remote(num_cpus=1)(lambda: together(rows(listed))).remote()))
    return (
        ray.data.from_arrow(listed)
        .repartition(len(files))
        .map_batches(rows, batch_size=1, batch_format="pyarrow")
        .repartition(partitions, keys=[key])
        .map_batches(together, batch_size=None, batch_format="pyarrow")
    )


def keys_of(exact: UInt64s, bands: UInt64s, first: int) -> pa.Table:
    """List the keys under which the documents of one part meet others.

    Args:
        exact: Hash of each text, [N].
        bands: [N, num_buckets].
        first: Number of the part's first document.

    Returns:
        `key, number, other`: a row for each key, or, where another document of the part has the same key, for
        the link to it. A key that every document of a corpus has is shuffled once for each part.
    """
    numbers = first + np.arange(len(exact), dtype=np.int64)
    columns = [exact, *(bands[:, band] for band in range(bands.shape[1]))]
    tables = []
    for place, column in enumerate(columns):
        keys = mix(column + np.uint64(place * _BAND_STEP % 2**64))  # so that two bands never meet
        _, where = np.unique(keys, return_index=True)
        tables.append(_rows(keys[where], numbers[where], _NO_LINK))
        left, right = chain_edges(keys, numbers)
        tables.append(_rows(mix(left.astype(np.uint64)), left, right))
    return pa.concat_tables(tables)


def _rows(keys: UInt64s, numbers: Ints, others: Ints | int) -> pa.Table:
    return pa.table(
        {
            "key": keys.view(np.int64),
            "number": numbers,
            "other": np.broadcast_to(np.asarray(others, np.int64), numbers.shape),
        }
    )


def _keys_of(file: str, part: int) -> pa.Table:
    """Read the sketches of a part."""
    sketch = read_rows(file, ["exact", "bands"]).combine_chunks()
    exact = sketch["exact"].to_numpy()
    bands = sketch["bands"].combine_chunks()
    flat = bands.flatten().to_numpy() if len(bands) else np.zeros(0, np.uint64)
    return keys_of(exact, flat.reshape(len(exact), bands.type.list_size), part << ROW_BITS)


def _links(rows: pa.Table) -> pa.Table:
    """Link the documents of one partition that share a key; as few links as join the same documents."""
    keys, numbers, others = (rows[name].to_numpy() for name in ("key", "number", "other"))
    is_link = others != _NO_LINK
    left, right = chain_edges(keys[~is_link].view(np.uint64), numbers[~is_link])
    left, right = contract(np.concatenate((left, numbers[is_link])), np.concatenate((right, others[is_link])))
    return pa.table({"left": left, "right": right})


def _join_apart(links: ray.data.Dataset, partitions: int) -> ray.data.Dataset:
    """Alternate large-star and small-star until nothing changes: then every link leads to the first of its cluster."""
    before = None
    for _ in range(_MAX_ROUNDS):
        links = _star(_star(links, large_star, partitions, True), small_star, partitions, False).materialize()
        now = _checksum(links)
        if now == before:
            return links
        before = now
    raise RuntimeError(f"connected components did not settle in {_MAX_ROUNDS} rounds")


def _star(
    links: ray.data.Dataset, star: Callable[[Ints, Ints], tuple[Ints, Ints]], partitions: int, both: bool
) -> ray.data.Dataset:
    """Bring the links of a document together and apply one of the operations.

    Args:
        links: `left`, `right`.
        star: Takes and gives links.
        partitions: Tasks.
        both: Whether each link is to be seen from both of its documents, or from the larger one alone.
    """

    def turned(table: pa.Table) -> pa.Table:
        left, right = table["left"].to_numpy(), table["right"].to_numpy()
        if both:
            left, right = both_ways(left, right)
        else:
            left, right = np.maximum(left, right), np.minimum(left, right)
        return pa.table({"left": left, "right": right})

    def applied(table: pa.Table) -> pa.Table:
        left, right = star(table["left"].to_numpy(), table["right"].to_numpy())
        return pa.table({"left": left, "right": right})

    return (
        links.map_batches(turned, batch_size=None, batch_format="pyarrow")
        .repartition(partitions, keys=["left"])
        .map_batches(applied, batch_size=None, batch_format="pyarrow")
    )


def _checksum(links: ray.data.Dataset) -> tuple[int, int]:
    """Tell two sets of links apart: their number, and a hash that knows no order."""

    def summed(table: pa.Table) -> pa.Table:
        value = digest(table["left"].to_numpy(), table["right"].to_numpy())
        return pa.table({"digest": pa.array([value % 2**64], pa.uint64())})

    digests = collect(links.map_batches(summed, batch_size=None, batch_format="pyarrow"), digest=np.uint64)[0]
    return links.count(), sum(digests.tolist()) % 2**64


def collect(dataset: ray.data.Dataset, **types: Any) -> list[Any]:
    """Bring columns of a dataset to the driver.

    Args:
        dataset: Small.
        **types: NumPy type of each column.

    Returns:
        An array for each.
    """
    tables: Iterable[pa.Table] = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    batches = [table for table in tables if table.num_rows]
    return [
        np.concatenate([np.zeros(0, kind), *(batch[name].to_numpy() for batch in batches)])
        for name, kind in types.items()
    ]
