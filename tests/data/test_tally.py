"""Counts that add up, whatever the batches."""

import numpy as np
import pyarrow as pa

from qwen_core.data import tally


def _documents(count, start=0):
    numbers = range(start, start + count)
    return pa.table(
        {
            "id": [f"{n:016x}" for n in numbers],
            "text": ["文" * (n % 5 + 1) for n in numbers],
            "source": ["a" if n % 2 else "b" for n in numbers],
            "url": [None] * count,
            "language": ["zh" if n % 3 else None for n in numbers],
            "language_score": pa.array([n % 10 / 10 for n in numbers], pa.float32()),
        }
    )


def _reasons(count, start=0):
    return np.array(["short" if n % 4 == 0 else None for n in range(start, start + count)], object)


def test_batches_add_up_to_the_whole_in_any_order():
    whole = tally.merge([tally.tally(_documents(40), _reasons(40))])
    parts = [tally.tally(_documents(10, start), _reasons(10, start)) for start in (30, 0, 20, 10)]
    assert tally.merge(parts) == whole
    assert tally.merge([tally.merge(parts[:2]), tally.merge(parts[2:])]) == whole


def test_funnel_counts_documents_and_bytes_by_source_language_and_reason():
    counted = tally.tally(_documents(4), _reasons(4))
    assert counted["funnel"] == [
        ["a", "", "", 1, 12],
        ["a", "zh", "", 1, 6],
        ["b", "", "short", 1, 3],
        ["b", "zh", "", 1, 9],
    ]
    assert tally.drops(counted["funnel"]) == {"short": 1}
    assert tally.kept(counted["funnel"], "source") == {"a": 2, "b": 1}
    assert tally.kept_bytes(counted["funnel"]) == 27
    assert tally.kept_rows(counted["funnel"]) == [["a", "", 1, 12], ["a", "zh", 1, 6], ["b", "zh", 1, 9]]


def test_samples_are_few_and_name_the_document():
    counted = tally.tally(_documents(60), _reasons(60))
    assert len(counted["samples"]["short"]) == tally.SAMPLES_PER_REASON
    assert counted["samples"]["short"][0]["id"] == "0" * 16 and counted["samples"]["short"][0]["text"] == "文"


def test_histogram_counts_kept_documents_and_puts_large_values_into_the_last_bin():
    table = _documents(8).set_column(1, "text", pa.array(["x" * 20] * 7 + ["x" * 3_000_000]))
    counts = tally.tally(table)["histograms"]["characters"]
    assert sum(counts) == 8 and counts[-1] == 1 and counts[1] == 7


def test_what_never_became_a_document_is_counted_too():
    merged = tally.merge([tally.lost("crawl", {"invalid_json": 2, "empty": 0}), tally.tally(_documents(2))])
    assert tally.drops(merged["funnel"]) == {"invalid_json": 2}
    assert tally.merge([]) == {"funnel": [], "samples": {}, "histograms": {}}
