"""Raw records to documents."""

import json

import pyarrow as pa
import pytest

from qwen_core.data.documents import SCHEMA, document_id
from qwen_core.data.ingest import Cleaning, batched, to_documents
from qwen_core.data.read import SCHEMA as RAW_SCHEMA
from qwen_core.data.read import Fields, Report, read_batches

SOURCE = RAW_SCHEMA.get_field_index("source")
PROSE = "A sentence of quite a few plain words. "


def documents(path, cleaning=None, **options):
    report = Report()
    tables = read_batches(str(path), Fields(source=("source",)), report, **options)
    named = (table.set_column(SOURCE, "source", pa.array(["name"] * table.num_rows)) for table in batched(tables))
    made = [to_documents(table, cleaning or Cleaning(), report) for table in named]
    return pa.concat_tables(made) if made else SCHEMA.empty_table(), report


def test_documents_have_the_schema_and_know_where_they_stand(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": PROSE, "url": "u", "date": "2026-01-01", "license": "mit"}) + "\n")
    table, report = documents(path)
    assert table.schema == SCHEMA
    (row,) = table.to_pylist()
    assert row["id"] == document_id(str(path), "0/0") and row["text"] == PROSE.strip()
    assert (row["url"], row["timestamp"], row["language"]) == ("u", "2026-01-01", "en")
    assert json.loads(row["metadata"]) == {"licence": "mit", "source_file": str(path), "source_position": "0"}
    assert not report.drops


def test_long_documents_are_cut_among_short_ones_in_order(tmp_path):
    texts = [PROSE, PROSE * 30, PROSE * 2, PROSE * 20]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(texts))
    )
    table, _ = documents(tmp_path / "a.jsonl", Cleaning(max_chars=500))
    rows = table.to_pylist()
    numbers = [json.loads(row["metadata"])["n"] for row in rows]
    assert numbers == sorted(numbers) and numbers.count(1) == 3 and numbers.count(3) == 2
    assert all(len(row["text"]) <= 500 and row["text"].endswith("words.") for row in rows)
    assert " ".join(row["text"] for row in rows if '"n":1' in row["metadata"]) == (PROSE * 30).strip()
    assert len(set(table["id"].to_pylist())) == len(rows)


def test_ids_do_not_depend_on_the_ranges(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} {PROSE}"}) + "\n" for i in range(200)))
    whole = documents(path)[0]
    parts = [documents(path, start=start, end=end)[0] for start, end in [(0, 700), (700, 6000), (6000, None)]]
    assert pa.concat_tables(parts).equals(whole) and whole.num_rows == 200


def test_short_and_empty_documents_are_counted_with_their_first_place(tmp_path):
    lines = [{"text": PROSE}, {"text": "short"}, {"text": " \n\t"}, {"text": "s"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table, report = documents(tmp_path / "a.jsonl")
    assert table.num_rows == 1 and report.drops == {"too_short": 2, "empty": 1}
    assert report.records == table.num_rows + report.drops.total()
    first = len(json.dumps(lines[0])) + 1 + len(json.dumps(lines[1])) + 1
    assert [fault["position"] for fault in report.faults if fault["reason"] == "empty"] == [str(first)]


def test_code_is_left_as_it_is_beside_prose(tmp_path):
    text = 'x = "ＡＢＣ"  # caf\u00c3\u00a9\n#####\ny = 1\n'
    (tmp_path / "a.py").write_text(text)
    (tmp_path / "b.txt").write_text(text)
    cleaning = Cleaning(width="half", drop_noise_lines=True, min_chars=1)
    report = Report()
    raw = [table for name in ("a.py", "b.txt") for table in read_batches(str(tmp_path / name), Fields(), report)]
    (batch,) = batched(raw)
    code, prose = to_documents(batch, cleaning, report).to_pylist()
    assert code["text"] == text.strip() and code["language"] == "code" and code["language_score"] == 1
    assert prose["text"] == 'x = "ABC"  # café\ny = 1'
    assert report.repairs == {"mojibake": 1, "noise_lines": 1}


def test_small_tables_are_brought_together_and_large_ones_stay():
    table = pa.table({"text": ["x" * 100]})
    assert [t.num_rows for t in batched([table] * 5000)] == [2000, 2000, 1000]
    assert [t.num_rows for t in batched([pa.table({"text": ["x" * 9_000_000]})] * 2)] == [1, 1]
    assert list(batched([table.slice(0, 0)])) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_one_word_repeated_without_end_is_cut_and_kept(tmp_path, name):
    text = "word " * 400_000
    (tmp_path / name).write_text(json.dumps({"text": text}) if name.endswith("jsonl") else text)
    table, report = documents(tmp_path / name)
    assert table.num_rows >= 100 and not report.drops
    assert " ".join(table["text"].to_pylist()) == text.strip()
