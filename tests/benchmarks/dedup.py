"""The whole MinHash deduplication through Ray: read, signatures, bands, components, write; from 1x to 8x of the data.

Data-Juicer's published run (256 hashes in 32 bands, 5 TB on 1,280 cores in 3 hours) is 0.36 MB/s for each core.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from qwen_core.artifacts import Outcome, Store
from qwen_core.config import load_recipe
from qwen_core.data import tally
from qwen_core.data.documents import FILTERED_SCHEMA
from qwen_core.jobs.runner import run_stage
from qwen_core.parts import Part, PartStore, write_part_list
from qwen_core.stages import STAGES
from tests.benchmarks.corpus import copies, texts

_PART_BYTES = 16 << 20
_CORES = 2
_DATA_JUICER = 5e12 / (1280 * 3 * 3600) / 1e6
_PLANS = ((14, 8), (32, 8))


def main() -> None:
    """Deduplicate a corpus of several sizes, with both numbers of hashes."""
    base = texts()
    sizes = [int(size) for size in os.environ.get("QWEN_CORE_BENCH_COPIES", "1,2,4,8").split(",")]
    print(f"Deduplication through Ray on {_CORES} workers, read to write")
    with tempfile.TemporaryDirectory() as folder:  # the first pass starts Ray's workers: not counted
        _measure(base[:200], 1, *_PLANS[0], Path(folder), is_told=False)
    for buckets, hashes in _PLANS:
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                _measure(base, size, buckets, hashes, Path(folder))
    _stop()


def _measure(base: list[str], size: int, buckets: int, hashes: int, folder: Path, is_told: bool = True) -> None:
    recipe = load_recipe("curate", [f"dedup.num_buckets={buckets}", f"dedup.hashes_per_bucket={hashes}"])
    store = Store(str(folder / "store"))
    megabytes = _filtered(store, recipe, copies(base, size)) / 1e6
    _warm()
    with _Memory() as memory:
        started = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            manifest, _ = run_stage("dedup", recipe, "bench", store, f"folder:{folder}")
        seconds = time.perf_counter() - started
    rate = megabytes / seconds / _CORES
    drops = json.dumps(manifest.drops)
    if not is_told:
        return
    print(
        f"  {buckets} x {hashes}  {megabytes:7.1f} MB  {seconds:6.1f} s  {rate:6.2f} MB/s per core "
        f"({rate / _DATA_JUICER:.0f} times Data-Juicer's published rate)  "
        f"largest worker {memory.peak / 1e6:,.0f} MB  {drops}"
    )


def _filtered(store: Store, recipe: object, documents: object) -> int:
    """Lay a corpus into the store as `filter` would leave it."""
    attempt = store.begin(STAGES["filter"], recipe, "bench", {}, {})  # type: ignore[arg-type]
    places, parts, rows, size, total = PartStore(store.root, "filter"), [], [], 0, 0
    for text in [*documents, None]:  # type: ignore[misc]
        if text is not None:
            rows.append(text)
            size += len(text.encode())
        if rows and (text is None or size >= _PART_BYTES):
            parts.append(_part(places, len(parts), rows))
            total, rows, size = total + size, [], 0
    write_part_list(store, attempt.data_uri, parts)
    manifest = store.commit(attempt, Outcome(rows=sum(part.rows for part in parts)), 0, None)
    store.point("bench", manifest)
    return total


def _part(places: PartStore, number: int, rows: list[str]) -> Part:
    count = len(rows)
    columns = {
        "id": [f"{number:08x}{row:08x}" for row in range(count)],
        "text": rows,
        "source": ["bench"] * count,
        "language": ["en"] * count,
        "quality_score": [0.5] * count,
    }
    table = pa.table({f.name: pa.array(columns.get(f.name, [None] * count), f.type) for f in FILTERED_SCHEMA})
    uri = places.target(f"bench{number}")
    pq.write_table(table, uri, compression="zstd")
    told = tally.tally(table)
    return Part(
        fingerprint=f"bench{number}",
        uri=uri,
        rows=count,
        bytes=Path(uri).stat().st_size,
        text_bytes=tally.kept_bytes(told["funnel"]),
        told={"kept": tally.kept_rows(told["funnel"])},
    )


def _warm() -> None:
    """Start Ray and its workers before the clock; what that takes is told apart."""
    import ray

    from qwen_core.jobs.context import connect_ray

    if ray.is_initialized():
        return
    started = time.perf_counter()
    os.environ.setdefault("RAY_ADDRESS", "local")
    connect_ray()
    ray.get([ray.remote(lambda: __import__("qwen_core.data.minhash")).remote() for _ in range(_CORES)])
    print(f"  Ray's start, once for each run: {time.perf_counter() - started:.1f} s")


def _workers() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if process.is_running()]


class _Memory:
    """The largest private memory that a single worker reaches."""

    peak = 0

    def __enter__(self) -> _Memory:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.3):
            for process in _workers():
                try:
                    if "ray::" in process.name() or "ray::" in " ".join(process.cmdline()[:1]):
                        self.peak = max(self.peak, process.memory_full_info().uss)
                except psutil.Error:
                    continue


def _stop() -> None:
    import ray

    ray.shutdown()
