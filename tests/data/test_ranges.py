"""Ranges: a file read in parts gives the same records as read whole, and each part its own fingerprint."""

import gzip
import json
import random
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen_core.data.read.ranges import plan_ranges
from qwen_core.data.read.texts import TEXT_BLOCK_BYTES
from tests.data.test_read import read


def plan(path, kind, range_bytes):
    return plan_ranges(str(path), kind, path.stat().st_size, range_bytes)


def in_parts(path, bounds):
    """Positions and texts of all parts, one after the other."""
    rows = [row for start, end in bounds for row in read(path, start=start, end=end)[0]]
    return [(row["position"], row["text"]) for row in rows]


@pytest.fixture
def lines(tmp_path):
    numbers = random.Random(1)
    path = tmp_path / "a.jsonl"
    records = [{"text": f"{i} " + "水 and fire " * numbers.randrange(40)} for i in range(2000)]
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" * numbers.randrange(1, 3) for r in records))
    return path


def test_planned_ranges_of_lines_are_exact_and_complete(lines):
    whole = in_parts(lines, [(0, None)])
    parts = plan(lines, "records", 10_000)
    assert len(parts) > 20 and len({part.content_hash for part in parts}) == len(parts)
    assert sum(part.size for part in parts) == lines.stat().st_size
    assert in_parts(lines, [(part.start, part.end) for part in parts]) == whole and len(whole) == 2000


def test_a_record_belongs_to_the_range_in_which_it_begins_wherever_that_is_cut(lines):
    whole, size, numbers = in_parts(lines, [(0, None)]), lines.stat().st_size, random.Random(2)
    for _ in range(20):
        cuts = [0, *sorted(numbers.sample(range(1, size), 9)), size]
        assert in_parts(lines, pairwise(cuts)) == whole


def test_file_that_grows_keeps_the_fingerprints_of_its_ranges(lines):
    before = plan(lines, "records", 10_000)
    with lines.open("a") as file:
        file.write('{"text": "one more"}\n')
    after = plan(lines, "records", 10_000)
    assert [p.content_hash for p in after[: len(before) - 1]] == [p.content_hash for p in before[:-1]]
    assert after[len(before) - 1].content_hash != before[-1].content_hash


def test_fingerprint_is_of_content_and_place_and_not_of_the_name(lines, tmp_path):
    other = tmp_path / "b.jsonl"
    other.write_bytes(lines.read_bytes())
    assert plan(lines, "records", 10_000) == plan(other, "records", 10_000)
    other.write_bytes(lines.read_bytes().replace(b"0 ", b"9 ", 1))
    assert plan(lines, "records", 10_000)[0] != plan(other, "records", 10_000)[0]


def test_tables_are_cut_only_where_no_row_goes_over_lines(tmp_path):
    path = tmp_path / "a.csv"
    rows = "".join(f'{i},"row {i}, with a comma"\n' for i in range(3000))
    path.write_text("n,text\n" + rows)
    parts = plan(path, "table", 10_000)
    assert len(parts) > 5
    assert in_parts(path, [(p.start, p.end) for p in parts]) == in_parts(path, [(0, None)])
    path.write_text("n,text\n" + rows + '9,"two\nlines"\n')
    assert [(p.start, p.end) for p in plan(path, "table", 10_000)] == [(0, None)]


def test_parquet_is_cut_at_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i} {i * 7919}" for i in range(10_000)]}), path, row_group_size=1000)
    parts = plan(path, "parquet", 40_000)
    assert 2 < len(parts) < 10
    assert in_parts(path, [(p.start, p.end) for p in parts]) == in_parts(path, [(0, None)])


@pytest.mark.parametrize("tail", [0, 10, 70_000, TEXT_BLOCK_BYTES - 5])
def test_text_is_cut_at_paragraphs_wherever_its_ranges_lie(tmp_path, tail):
    path = tmp_path / "a.txt"
    paragraph = "A line of words.\n" * 50 + "\n"
    text = paragraph * (1 + (2 * TEXT_BLOCK_BYTES + tail) // len(paragraph))
    path.write_text(text[: 2 * TEXT_BLOCK_BYTES + tail])
    whole = in_parts(path, [(0, None)])
    parts = plan(path, "prose", TEXT_BLOCK_BYTES)
    assert len(parts) == (2 if not tail else 3)
    assert in_parts(path, [(p.start, p.end) for p in parts]) == whole
    assert "".join(text for _, text in whole).strip() == path.read_text().strip()
    assert all(text.endswith("\n\n") for _, text in whole[:-1])


def test_what_cannot_be_cut_is_one_range(tmp_path):
    raw = b'{"text": "a long enough line of text"}\n' * 1000
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(raw))
    (tmp_path / "b.json").write_bytes(b"[" + raw.replace(b"\n", b",\n")[:-2] + b"]")
    (tmp_path / "c.jsonl").write_text(raw.decode(), encoding="utf-16")
    for name in ("a.jsonl", "b.json", "c.jsonl"):
        assert [(p.start, p.end) for p in plan(tmp_path / name, "records", 500)] == [(0, None)]
        assert len(read(tmp_path / name)[0]) == 1000
