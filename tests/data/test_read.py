"""Readers: every format, and which key is what."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from qwen_core.data.read import Fields, Report, kind_of, read_batches

LINES = [json.dumps({"text": f"text {i}", "url": f"u{i}", "stars": i}) for i in range(3)]
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def read(path, fields=None, **options):
    """Read a file whole; give rows as mappings, with `metadata` parsed, and the report."""
    report = Report()
    tables = list(read_batches(str(path), fields or Fields(), report, **options))
    rows = [row | {"metadata": json.loads(row["metadata"])} for table in tables for row in table.to_pylist()]
    return rows, report


def texts(path, fields=None, **options):
    return [row["text"] for row in read(path, fields, **options)[0]]


def stands(path, position):
    """What every document's metadata tells of its place."""
    return {"source_file": str(path), "source_position": str(position)}


@pytest.mark.parametrize("ending", PACK)
def test_json_lines_are_read_plain_and_packed(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(PACK[ending]("\n".join(LINES).encode()))
    rows, report = read(path)
    assert [(r["text"], r["url"], r["metadata"]) for r in rows] == [
        (f"text {i}", f"u{i}", {"stars": i, **stands(path, i * (len(LINES[0]) + 1))}) for i in range(3)
    ]
    assert report == Report(records=3, path=str(path))


def test_position_of_a_line_is_its_byte_offset(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "水"}\n\n{"text": "b"}\n', encoding="utf-8")
    assert [row["position"] for row in read(tmp_path / "a.jsonl")[0]] == ["0", "17"]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_members_one_after_the_other_are_one_file(tmp_path, ending):
    (tmp_path / f"a.jsonl{ending}").write_bytes(b"".join(PACK[ending](line.encode() + b"\n") for line in LINES))
    assert texts(tmp_path / f"a.jsonl{ending}") == ["text 0", "text 1", "text 2"]


@pytest.mark.parametrize(
    "content",
    [
        "[{}]".format(", ".join(LINES)),
        json.dumps([json.loads(line) for line in LINES], indent=2),
        "\n".join(json.dumps(json.loads(line), indent=2) for line in LINES),
    ],
    ids=["one line", "indented array", "indented records"],
)
def test_json_that_is_no_lines_is_read_record_by_record(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    rows, report = read(tmp_path / "a.json")
    assert [(r["text"], r["position"]) for r in rows] == [(f"text {i}", str(i)) for i in range(3)]
    assert not report.drops


def test_several_text_columns_are_joined_and_others_mapped(tmp_path):
    record = {"title": "Head", "body": "Trunk", "link": "u", "day": "2026-01-01", "license": "mit", "key": 7}
    (tmp_path / "a.jsonl").write_text(json.dumps(record | {"meta": {"site": "s"}}))
    fields = Fields(text=("title", "body"), timestamp=("day",), id=("key",), source=("meta.site",))
    (row,), _ = read(tmp_path / "a.jsonl", fields)
    assert (row["text"], row["url"], row["timestamp"], row["source"]) == ("Head\n\nTrunk", "u", "2026-01-01", "s")
    told = {"licence": "mit", "id": "7", "meta": {"site": "s"}, **stands(tmp_path / "a.jsonl", 0)}
    assert row["metadata"] == told


def test_html_column_gives_its_main_text(tmp_path):
    page = "<html><body><nav>menu</nav><main><p>The story of a small river.</p></main></body></html>"
    (tmp_path / "a.jsonl").write_text(json.dumps({"html": page}))
    assert texts(tmp_path / "a.jsonl", Fields(html=("html",))) == ["The story of a small river."]


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_delimited_rows_keep_line_ends_inside_of_quotes(tmp_path, ending):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t" if ending == "tsv" else ",")
    writer.writerows([["text", "url"], ['two\nlines, and a "quote"', "u"], ["", "v"], ["水", ""]])
    raw = buffer.getvalue().encode("utf-8-sig")
    (tmp_path / f"a.{ending}").write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    rows, report = read(tmp_path / f"a.{ending}")
    assert [(r["text"], r["url"]) for r in rows] == [('two\nlines, and a "quote"', "u"), ("水", None)]
    assert report.drops == {"empty": 1} and report.records == 3


def test_parquet_gives_rows_by_number_and_leaves_vectors(tmp_path):
    table = pa.table({"text": ["a", None, "", "c"], "n": [1, 2, 3, 4], "vector": [[0.5]] * 4})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    rows, report = read(tmp_path / "a.parquet")
    assert [(r["text"], r["position"], r["metadata"]["n"]) for r in rows] == [("a", "0", 1), ("c", "3", 4)]
    assert "vector" not in rows[0]["metadata"]
    assert report.drops == {"missing_text": 1, "empty": 1} and report.records == 4


def test_prose_code_and_pages_are_one_record_each(tmp_path):
    (tmp_path / "a.md").write_bytes("# 标题和更多的中文文本\n".encode("gb18030"))
    (tmp_path / "b.py").write_text("# SPDX-License-Identifier: MIT\nx = 1\n")
    (tmp_path / "c.html").write_text('<title>A page</title><p>Words.<a rel="license" href="https://l.example/">by</a>')
    assert texts(tmp_path / "a.md") == ["# 标题和更多的中文文本\n"]
    (code,), _ = read(tmp_path / "b.py")
    assert code["is_code"] and code["metadata"]["licence"] == "MIT"
    (page,), _ = read(tmp_path / "c.html")
    told = {"title": "A page", "licence": "https://l.example/", **stands(tmp_path / "c.html", 0)}
    assert page["metadata"] == told
    assert "Words." in page["text"] and not page["is_code"]


def test_utf16_is_read_by_its_mark(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(LINES), encoding="utf-16")
    (tmp_path / "b.txt").write_text("水和火", encoding="utf-16")
    assert texts(tmp_path / "a.jsonl") == ["text 0", "text 1", "text 2"]
    assert texts(tmp_path / "b.txt") == ["水和火"]


def test_broken_line_is_counted_beside_what_the_others_tell(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join([*LINES, "{broken"]))
    found, report = read(tmp_path / "a.jsonl")
    told = [(r["text"], r["url"], {"stars": r["metadata"]["stars"]}) for r in found]
    assert told == [(f"text {i}", f"u{i}", {"stars": i}) for i in range(3)]
    assert report.drops == {"invalid_json": 1}


def test_kind_is_told_by_the_ending():
    names = (
        "a.jsonl.gz",
        "b.parquet",
        "c.txt",
        "d.rs",
        "e.warc.gz",
        "f.csv.zst",
        "g.html",
        "h.png",
        "i",
        "s3://b/k.md",
    )
    kinds = [kind_of(Path(name) if "://" not in name else name) for name in names]
    assert kinds == ["records", "parquet", "prose", "code", "web", "table", "page", None, None, "prose"]
