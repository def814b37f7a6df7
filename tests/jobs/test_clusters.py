"""Clusters over Ray: the same as one process finds them, with few links and with too many for one task."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from qwen_core.jobs.clusters import ROW_BITS, find_clusters
from qwen_core.jobs.context import connect_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PARTS, ROWS, BANDS = 5, 400, 3


@pytest.fixture(scope="module", autouse=True)
def _ray():
    connect_ray()


@pytest.fixture
def sketches(tmp_path):
    """Documents of which many meet in a band, one band value that every tenth has, and chains over several parts."""
    random = np.random.default_rng(0)
    exact = random.integers(0, 2**60, (PARTS, ROWS), dtype=np.uint64)
    bands = random.integers(0, 1500, (PARTS, ROWS, BANDS), dtype=np.uint64)
    bands[:, ::10, 1] = 7
    exact[1, :20] = exact[0, :20]
    files = []
    for part in range(PARTS):
        column = pa.FixedSizeListArray.from_arrays(pa.array(bands[part].reshape(-1)), BANDS)
        files.append(str(tmp_path / f"{part}.parquet"))
        pq.write_table(pa.table({"exact": exact[part], "bands": column}), files[-1])
    return files, exact.reshape(-1), bands.reshape(-1, BANDS)


def _expected(exact, bands):
    """Smallest member of each document's component, by brute force over equal values."""
    links = []
    for column in (exact, *bands.T):
        order = np.argsort(column, kind="stable")
        same = column[order][1:] == column[order][:-1]
        links.append((order[:-1][same], order[1:][same]))
    left, right = (np.concatenate(side) for side in zip(*links, strict=True))
    count = len(exact)
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    first = np.full(component.max() + 1, count)
    np.minimum.at(first, component, np.arange(count))
    return {n: first[component[n]] for n in np.unique(np.concatenate((left, right)))}


@pytest.mark.parametrize(("partition_rows", "max_links"), [(10**6, 10**6), (2000, 10**6), (2000, 100)])
def test_components_are_those_of_one_process(sketches, partition_rows, max_links, monkeypatch):
    monkeypatch.setattr("qwen_core.jobs.clusters._PARTITION_ROWS", partition_rows)
    files, exact, bands = sketches
    found = find_clusters(files, len(exact), BANDS + 1, max_links)
    plain = {n: (n // ROWS) << ROW_BITS | n % ROWS for n in range(len(exact))}
    expected = {plain[n]: plain[m] for n, m in _expected(exact, bands).items()}
    assert dict(zip(found.nodes.tolist(), found.labels.tolist(), strict=True)) == expected
    assert len(expected) > 500
