"""Readers: what broken input is counted as, and that everything else is kept."""

import gzip
import json
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from qwen_core.data.read import Report, read_batches
from qwen_core.data.read.fields import Fields
from tests.data.test_read import LINES, read, texts


def test_bad_lines_are_counted_with_their_places_and_the_rest_is_kept(tmp_path):
    lines = [LINES[0].encode(), b"{broken", b'{"other": 1}', b'["list"]', b'{"text": 3}', LINES[1].encode()]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows, report = read(tmp_path / "a.jsonl")
    assert [r["text"] for r in rows] == ["text 0", "text 1"]
    assert report.drops == {"invalid_json": 1, "missing_text": 3} and report.records == 6
    first = len(lines[0]) + 1
    assert report.faults[0] == {"path": str(tmp_path / "a.jsonl"), "position": str(first), "reason": "invalid_json"}


def test_faults_that_are_listed_are_bounded(tmp_path):
    (tmp_path / "a.jsonl").write_text("{broken\n" * 1000)
    _, report = read(tmp_path / "a.jsonl")
    assert report.drops == {"invalid_json": 1000} and len(report.faults) == 5


@pytest.mark.parametrize(
    ("line", "text", "repair"),
    [
        (b'{"text": "gut: \xc3\xa9, bad: \xff"}', "gut: é, bad: \ufffd", "invalid_encoding"),
        ('{"text": "这是一个用国标编码写的句子"}'.encode("gb18030"), "这是一个用国标编码写的句子", "foreign_encoding"),
        (rb'{"text": "lone \ud800 half"}', "lone \ufffd half", "lone_surrogate"),
        (rb'{"text": "pair \ud83d\ude00"}', "pair 😀", None),
        (b'{"text": "tab\tand nul\x00"}', "tab\tand nul\x00", None),
        (rb'{"text": "nul \u0000", "n": NaN}', "nul \x00", None),
    ],
)
def test_odd_bytes_are_mended_and_counted(tmp_path, line, text, repair):
    (tmp_path / "a.jsonl").write_bytes(LINES[0].encode() + b"\n" + line + b"\n" + LINES[1].encode())
    rows, report = read(tmp_path / "a.jsonl")
    assert [r["text"] for r in rows] == ["text 0", text, "text 1"]
    assert report.repairs == ({repair: 1} if repair else {}) and not report.drops


def test_broken_record_of_an_array_costs_only_itself(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "one"},\n {"text": "tw" o"},\n {"text": "three"}]')
    rows, report = read(tmp_path / "a.json")
    assert [r["text"] for r in rows] == ["one", "three"] and report.drops == {"invalid_json": 1}
    (tmp_path / "b.json").write_text('[{"text": "one"}, {"text": "cut o')
    rows, report = read(tmp_path / "b.json")
    assert [r["text"] for r in rows] == ["one"] and report.drops == {"invalid_json": 1}


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_truncated_archive_gives_what_can_be_had(tmp_path, ending, pack):
    numbers = random.Random(1)
    raw = "\n".join(json.dumps({"text": f"{i} {numbers.random()}"}) for i in range(20_000)).encode()
    whole = pack(raw)
    (tmp_path / f"a.jsonl.{ending}").write_bytes(whole[: len(whole) // 2])
    rows, report = read(tmp_path / f"a.jsonl.{ending}")
    assert 7000 < len(rows) < 12_000 and rows[0]["text"].startswith("0 ")
    assert report.drops["truncated_file"] == 1


def test_bytes_behind_an_archive_are_counted(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(LINES).encode()) + b"something else")
    rows, report = read(tmp_path / "a.jsonl.gz")
    assert len(rows) == 3 and report.drops == {"trailing_bytes": 1}


def test_broken_row_group_costs_only_itself(tmp_path):
    table = pa.table({"text": [f"{i} " + "x" * 200 for i in range(300)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=100, compression="none", use_dictionary=False)
    group = pq.read_metadata(path).row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    raw[group.data_page_offset : group.data_page_offset + 20] = b"\xff" * 20
    path.write_bytes(raw)
    rows, report = read(path)
    assert [r["position"] for r in rows] == [str(i) for i in [*range(100), *range(200, 300)]]
    assert report.drops == {"broken_row_group": 100} and report.records == 300


def test_parquet_strings_that_are_no_utf8_are_mended(tmp_path):
    raw = pa.array([b"good", b"bad \xff byte \xc3\xa9"], pa.binary())
    pq.write_table(pa.table({"text": pa.StringArray.from_buffers(2, *raw.buffers()[1:])}), tmp_path / "a.parquet")
    rows, report = read(tmp_path / "a.parquet")
    assert [r["text"] for r in rows] == ["good", "bad \ufffd byte é"] and report.repairs == {"invalid_encoding": 1}


def test_wrong_and_missing_columns_are_told(tmp_path):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("body,n\na,1\n")
    for name in ("a.parquet", "b.csv"):
        rows, report = read(tmp_path / name)
        assert not rows and report.drops == {"missing_text_column": 1}
    (tmp_path / "c.csv").write_text("n,text\n1,one\n2,two,three\n4\n5,five,\n")
    rows, report = read(tmp_path / "c.csv")
    assert [r["text"] for r in rows] == ["one", "five"]
    assert report.drops == {"wrong_columns": 1, "missing_text": 1}


def test_stray_returns_in_a_table_cost_only_their_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"n,te\rxt\r\n1,one\r\n2,t\rwo\r\n3,three\r\n")
    rows, report = read(tmp_path / "a.csv")
    assert [r["text"] for r in rows] == ["one", "three"] and report.drops == {"broken_record": 1}


def test_quote_that_never_ends_costs_no_more_than_the_limit(tmp_path):
    good = "".join(f"{i},row {i}\n" for i in range(2000))
    (tmp_path / "a.csv").write_text(f'n,text\n1,one\n2,"two\n{good}')
    rows, report = read(tmp_path / "a.csv", max_record_bytes=2000)
    assert rows[0]["text"] == "one" and rows[-1]["text"] == "row 1999" and len(rows) > 1700
    assert report.drops == {"record_too_large": 1}


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet", "a.jsonl.gz", "a.warc", "a.csv", "a.py", "a.html"])
def test_empty_file_is_counted(tmp_path, name):
    (tmp_path / name).touch()
    rows, report = read(tmp_path / name)
    assert not rows and report.drops == {"empty_file": 1}


def test_file_that_is_gone_or_a_folder_is_counted(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("gone.jsonl", "folder.jsonl", "gone.parquet", "gone.warc.gz"):
        rows, report = read(tmp_path / name)
        assert not rows and report.drops == {"unreadable_file": 1}


def test_ending_that_lies_is_seen_through(tmp_path):
    raw = "\n".join(LINES).encode()
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(raw))
    (tmp_path / "plain.jsonl.gz").write_bytes(raw)
    (tmp_path / "zstd.jsonl.gz").write_bytes(zstandard.compress(raw))
    pq.write_table(pa.table({"text": ["text 0", "text 1", "text 2"]}), tmp_path / "table.jsonl")
    for name, is_misnamed in (("packed.jsonl", 1), ("plain.jsonl.gz", 1), ("zstd.jsonl.gz", 0), ("table.jsonl", 1)):
        rows, report = read(tmp_path / name)
        assert [r["text"] for r in rows] == ["text 0", "text 1", "text 2"]
        assert report.repairs["misnamed_file"] == is_misnamed and not report.drops
    (tmp_path / "no.parquet").write_bytes(b"no parquet at all")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert read(tmp_path / "no.parquet")[1].drops == {"unreadable_file": 1}
    assert read(tmp_path / "picture.txt")[1].drops == {"binary_file": 1}


def test_nul_bytes_do_not_hide_a_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\x00b\n" * 50)
    assert texts(tmp_path / "a.txt") == ["a\x00b\n" * 50]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst", "json", "csv"])
def test_line_of_a_hundred_megabytes_is_passed_over_unheld(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    long = b"x" * 100_000_000
    if ending == "csv":
        raw = b"text\nfirst\n" + long + b"\nlast\n"
    elif ending == "json":
        raw = b'[{"text": "first"},\n{"text": "' + long + b'"},\n{"text": "last"}]'
    else:
        raw = b'{"text": "first"}\n{"text": "' + long + b'"}\n{"text": "last"}\n'
    path.write_bytes(zstandard.compress(raw) if ending.endswith("zst") else raw)
    del raw, long
    tracemalloc.start()
    rows, report = read(path, max_record_bytes=4 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [r["text"] for r in rows] == ["first", "last"]
    assert report.drops == {"record_too_large": 1} and report.records == 3
    assert peak < 40_000_000


def test_million_empty_strings_are_counted_without_being_held(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": ""}\n' * 1_000_000, 1))
    pq.write_table(pa.table({"text": [""] * 1_000_000}), tmp_path / "a.parquet")
    for name in ("a.jsonl.gz", "a.parquet"):
        report = Report()
        assert sum(table.num_rows for table in read_batches(str(tmp_path / name), Fields(), report)) == 0
        assert report.drops == {"empty": 1_000_000} and report.records == 1_000_000


def test_text_of_one_word_is_read_in_pieces(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"word " * 3_000_000)
    rows, report = read(tmp_path / "a.txt")
    assert "".join(r["text"] for r in rows) == "word " * 3_000_000
    assert len(rows) == 4 and not report.drops
