"""Reading a part of several sources."""

import json
import os

import pytest

from qwen_core.config import load_recipe
from qwen_core.data.documents import document_id
from qwen_core.data.read import Report
from qwen_core.errors import InputError
from qwen_core.jobs.reading import document_tables, part_options, told_of
from qwen_core.jobs.sources import document_sources

TEXT = "A sentence of quite a few plain words."


def read(folder):
    recipe = load_recipe("demo", [f"ingest.inputs=[{folder}]"])
    report = Report()
    sources = [vars(source) for source in document_sources(recipe)]
    tables = document_tables(sources, part_options(recipe.ingest), report)
    return [row for table in tables for row in table.to_pylist()], told_of(report)


def test_each_document_and_fault_is_of_its_own_file(tmp_path):
    # The second file is longer than a batch, so that a batch is cleaned while it is being read.
    (tmp_path / "a.jsonl").write_text('{"text": "short"}\n' + json.dumps({"text": TEXT}) + "\n")
    lines = [json.dumps({"text": f"{number} {TEXT}"}) for number in range(5000)]
    (tmp_path / "b.jsonl").write_text("\n".join([*lines, "{broken"]))
    rows, told = read(tmp_path)
    assert len(rows) == 5001
    for row in rows[1:]:
        assert json.loads(row["metadata"])["source_file"] == str(tmp_path / "b.jsonl")
    assert rows[1]["id"] == document_id(str(tmp_path / "b.jsonl"), "0/0")
    assert {(fault["path"], fault["reason"]) for fault in told["faults"]} == {
        (str(tmp_path / "a.jsonl"), "too_short"),
        (str(tmp_path / "b.jsonl"), "invalid_json"),
    }
    assert told["records"] == 5003 and len({row["source"] for row in rows}) == 1


def test_what_cannot_be_read_is_counted_and_named(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c.png").write_text("picture")
    (tmp_path / "d.png").write_text("picture")
    rows, told = read(tmp_path)
    assert [row["text"] for row in rows] == [TEXT]
    assert told["drops"] == {"unreadable_path": 1, "unknown_format": 2}


def test_file_that_vanishes_before_it_is_read_is_an_error_and_no_silent_loss(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text(TEXT)
    recipe = load_recipe("demo", [f"ingest.inputs=[{tmp_path}]"])
    sources = [vars(source) for source in document_sources(recipe)]
    (tmp_path / "a.txt").unlink()
    report = Report()
    with pytest.raises(InputError, match=r"a\.txt was there when this run began"):
        list(document_tables(sources, part_options(recipe.ingest), report))


def test_file_whose_name_is_no_utf8_is_counted_and_the_others_are_read(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / os.fsdecode("中文.txt".encode("gbk"))).write_text(TEXT)
    rows, told = read(tmp_path)
    assert [row["text"] for row in rows] == [TEXT] and told["drops"] == {"unreadable_path": 1}
