"""JSON lines to curated Parquet, start to end: rules and deduplication, beside datatrove's executor with two workers.

Ours reads, cleans, labels the language, judges by the four rule families, deduplicates and writes; datatrove does the
same with its readers, four filters and four MinHash steps, without cleaning and labels. Both get the same documents:
datatrove a slice, for it is slow and its time is linear; ours the slice, and more of the same kind, so that what Ray
takes to start can be told from what the work takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.corpus import copies, texts, write_jsonl
from tests.benchmarks.rules import AS_DATATROVE

_SLICE_BYTES = int(os.environ.get("QWEN_CORE_BENCH_SLICE", 6_000_000))
_COPIES = 3
_WORKERS = 2


def main() -> None:
    """Measure both, print rates and ratios."""
    documents = texts(("pretrain/en_tech", "pretrain/en_books"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        step = max(1, sum(len(text) for text in documents) // _SLICE_BYTES)
        small = write_jsonl(documents[::step], folder / "small.jsonl") / 1e6
        large = write_jsonl(copies(documents, _COPIES), folder / "large.jsonl") / 1e6
        print(f"JSON lines to curated Parquet, {_WORKERS} workers")
        theirs, kept_by_them = _datatrove(folder)
        ours_small, kept = _ours(folder / "small.jsonl", folder / "small")
        ours_large, _ = _ours(folder / "large.jsonl", folder / "large")
    _print("datatrove's executor", small, theirs, f"kept {kept_by_them:,}")
    _print("qwen-core, the same documents", small, ours_small, f"kept {kept:,}", theirs / ours_small)
    _print("qwen-core, more of them", large, ours_large, "", large / ours_large / (small / theirs))
    slope = (ours_large - ours_small) / (large - small)
    start = ours_small - slope * small
    print(f"  of which Ray's start and its passes take {start:.1f} s; each further MB {slope:.3f} s")
    print(f"  {'without that start':32} {1 / slope:8.2f} MB/s   {theirs / small / slope:.0f} times as fast")


def _print(name: str, megabytes: float, seconds: float, told: str, ratio: float | None = None) -> None:
    times = f"{ratio:.1f} times as fast" if ratio else ""
    print(f"  {name:32} {megabytes / seconds:8.2f} MB/s   {megabytes:6.1f} MB in {seconds:6.1f} s   {told} {times}")


def _ours(file: Path, output: Path) -> tuple[float, int]:
    """Run the command; its start counts."""
    recipe = output.with_suffix(".yaml")
    c4 = AS_DATATROVE["c4"] | {"needs_terminal_punctuation": False}  # as in FineWeb's pipeline
    sections = {
        "ingest": {"max_document_chars": 100_000_000, "recognise_code": False},
        "classifiers": {"train": []},
        "filter": AS_DATATROVE | {"c4": c4},
        "dedup": {"num_buckets": 14, "hashes_per_bucket": 8},
    }
    recipe.write_text(json.dumps(sections), encoding="utf-8")  # JSON is YAML
    command = [
        sys.executable,
        "-m",
        "qwen_core",
        "curate",
        str(file),
        "-o",
        str(output),
        "--recipe",
        str(recipe),
        "--json",
    ]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    return seconds, json.loads(done.stdout)["stages"]["dedup"]["documents"]


def _datatrove(folder: Path) -> tuple[float, int]:
    """Run datatrove's steps one after another, each with two workers."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.curate", str(folder), str(_WORKERS)]
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    import pyarrow.parquet as pq

    return seconds, sum(pq.ParquetFile(file).metadata.num_rows for file in (folder / "curated").glob("*.parquet"))


def _run_datatrove(folder: Path, workers: int) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    source, places = folder / "input", {n: str(folder / n) for n in ("kept", "signatures", "buckets", "removed")}
    source.mkdir()
    lines = (folder / "small.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for number in range(workers):  # one task reads one file
        (source / f"{number}.jsonl").write_text("".join(lines[number::workers]), encoding="utf-8")
    rules = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    steps = [
        ([JsonlReader(str(source)), *rules, JsonlWriter(places["kept"])], workers),
        ([JsonlReader(places["kept"]), MinhashDedupSignature(places["signatures"], config=config)], workers),
        ([MinhashDedupBuckets(places["signatures"], places["buckets"], config=config)], config.num_buckets),
        ([MinhashDedupCluster(places["buckets"], places["removed"], config=config)], 1),
        (
            [
                JsonlReader(places["kept"]),
                MinhashDedupFilter(places["removed"]),
                ParquetWriter(str(folder / "curated")),
            ],
            workers,
        ),
    ]
    for number, (pipeline, tasks) in enumerate(steps):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=str(folder / f"logs-{number}")).run()


if __name__ == "__main__":
    _run_datatrove(Path(sys.argv[1]), int(sys.argv[2]))
