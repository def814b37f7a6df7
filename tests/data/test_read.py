"""Readers: every format, and what broken input is counted as."""

import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from qwen_core.data.read import kind_of, read_file

LINES = [json.dumps({"text": f"text {i}", "url": f"u{i}", "stars": i}) for i in range(3)]


def _read(path):
    drops = Counter()
    return list(read_file(path, "text", drops)), dict(drops)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_json_lines_are_read_plain_and_packed(tmp_path, ending):
    raw = "\n".join(LINES).encode()
    packed = {"jsonl": raw, "jsonl.gz": gzip.compress(raw), "jsonl.zst": zstandard.compress(raw)}[ending]
    (tmp_path / f"a.{ending}").write_bytes(packed)
    records, drops = _read(tmp_path / f"a.{ending}")
    assert [(r.text, r.url, r.extra) for r in records] == [(f"text {i}", f"u{i}", {"stars": i}) for i in range(3)]
    assert drops == {}


def test_bad_lines_are_counted_and_the_rest_is_kept(tmp_path):
    lines = [
        LINES[0].encode(),
        b"{broken",
        b'{"other": 1}',
        b'["list"]',
        b'{"text": "\xff\xfe\xfa"}',
        LINES[1].encode(),
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    records, drops = _read(tmp_path / "a.jsonl")
    assert [r.text for r in records][::2] == ["text 0", "text 1"]
    assert drops == {"invalid_json": 1, "missing_text": 2, "invalid_encoding": 1}


def test_truncated_gzip_gives_what_can_be_had(tmp_path):
    whole = gzip.compress("\n".join(json.dumps({"text": f"{i} {'x' * 50} {i * 7919}"}) for i in range(5000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    records, drops = _read(tmp_path / "a.jsonl.gz")
    assert 1000 < len(records) < 5000 and records[0].text.startswith("0 ")
    assert drops["truncated_file"] == 1


def test_parquet_is_read_and_a_missing_column_counted(tmp_path):
    pq.write_table(pa.table({"text": ["a", None, "c"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    records, drops = _read(tmp_path / "a.parquet")
    assert [r.text for r in records] == ["a", "c"] and drops == {"missing_text": 1}
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "b.parquet")
    assert _read(tmp_path / "b.parquet") == ([], {"missing_text_column": 1})
    (tmp_path / "c.parquet").write_bytes(b"no parquet at all")
    assert _read(tmp_path / "c.parquet") == ([], {"unreadable_file": 1})


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet", "a.jsonl.gz", "a.warc"])
def test_empty_file_is_counted(tmp_path, name):
    (tmp_path / name).touch()
    assert _read(tmp_path / name) == ([], {"empty_file": 1})


def test_text_and_code_are_one_record_each(tmp_path):
    (tmp_path / "a.md").write_bytes("# 标题\n".encode("gb18030"))
    (tmp_path / "b.py").write_text("x = 1\n")
    assert [(r.text, r.is_code) for r in _read(tmp_path / "a.md")[0]] == [("# 标题\n", False)]
    assert [(r.text, r.is_code) for r in _read(tmp_path / "b.py")[0]] == [("x = 1\n", True)]


def test_warc_pages_give_their_main_text(tmp_path):
    html = b"<html><body><nav>menu</nav><main><p>The story of a small river.</p></main></body></html>"
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(head.encode() + http + b"\r\n\r\n"))
    (record,), drops = _read(tmp_path / "a.warc.gz")
    assert "small river" in record.text and "menu" not in record.text
    assert record.url == "http://a.example/" and drops == {}


def test_kind_is_told_by_the_ending():
    from pathlib import Path

    kinds = {n: kind_of(Path(n)) for n in ("a.jsonl.gz", "b.parquet", "c.txt", "d.rs", "e.warc.gz", "f.png", "g")}
    assert list(kinds.values()) == ["records", "parquet", "prose", "code", "web", None, None]
