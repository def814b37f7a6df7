"""Sources: which files an input stands for, in which parts they are read, and what they are known by."""

import gzip
import json
import os
from pathlib import Path

import pytest

from qwen_core.config import load_recipe
from qwen_core.errors import InputError
from qwen_core.jobs.listing import list_files, title_of
from qwen_core.jobs.sources import document_sources, source_hashes

LINE = json.dumps({"text": "a line of some length"}) + "\n"


def sources(*inputs, **settings):
    listed = json.dumps([str(name) for name in inputs])
    overrides = [f"ingest.inputs={listed}", *(f"ingest.{name}={value}" for name, value in settings.items())]
    return document_sources(load_recipe("demo", overrides))


def names(name):
    return [os.path.relpath(file.path, start) for start in [str(name)] for file in list_files(str(name)).files]


@pytest.fixture
def folder(tmp_path):
    for name in ("b/c.jsonl", "a.jsonl", "b/d/e.md", ".hidden/f.jsonl", "b/.g.jsonl", "picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(LINE)
    return tmp_path


def test_folder_is_listed_in_order_without_what_is_hidden(folder):
    assert names(folder) == ["a.jsonl", "b/c.jsonl", "b/d/e.md", "picture.png"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b/c.jsonl"]),
        ("b/**", ["b/c.jsonl", "b/d/e.md"]),
        ("*/[cx].json?", ["b/c.jsonl"]),
        ("b*", ["b/c.jsonl", "b/d/e.md"]),
    ],
)
def test_globs_find_files_and_folders(folder, pattern, found):
    listed = list_files(f"{folder}/{pattern}").files
    assert [os.path.relpath(file.path, folder) for file in listed] == found


def test_links_that_lead_back_are_followed_once(folder):
    (folder / "b/loop").symlink_to(folder)
    (folder / "z").symlink_to(folder / "b/d")
    assert names(folder) == ["a.jsonl", "b/c.jsonl", "b/d/e.md", "picture.png"]
    assert len(list_files(f"{folder}/**/*.jsonl").files) == 2


def test_what_cannot_be_read_is_listed_to_be_counted(folder):
    (folder / "gone.jsonl").symlink_to(folder / "nowhere")
    found = sources(folder)
    assert [(source.kind, source.count) for source in found[-2:]] == [("unreadable_path", 1), ("unknown_format", 1)]
    assert [source.kind for source in found[:-2]] == ["file"] * 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_closed_file_and_folder_are_listed_to_be_counted(folder):
    (folder / "a.jsonl").chmod(0)
    (folder / "b/d").chmod(0)
    found = sources(folder)
    (folder / "b/d").chmod(0o700)
    assert [source.kind for source in found if source.path.endswith("b/d")] == ["unreadable_path"]
    assert [source.content_hash for source in found if source.path.endswith("a.jsonl")] == [""]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such file or folder"),
        ("*.parquet", "no such file or folder"),
        ("picture.png", "no file that can be read"),
    ],
)
def test_input_of_nothing_is_an_error_that_names_it(folder, name, message):
    with pytest.raises(InputError, match=message) as told:
        sources(folder / name)
    assert str(folder / name) in str(told.value)


def test_large_plain_file_becomes_several_sources(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINE * 1000)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINE.encode() * 1000))
    found = sources(tmp_path, part_bytes=10_000)
    assert [Path(source.path).name for source in found] == ["a.jsonl"] * 4 + ["b.jsonl.gz"]
    assert [source.start for source in found[1:4]] == [source.end for source in found[:3]]
    assert sum(source.size for source in found[:4]) == 1000 * len(LINE)


def test_file_that_two_inputs_name_is_read_once(folder):
    def places(found):
        return [source.path for source in found if source.kind == "file"]

    assert places(sources(folder, folder / "b", folder / "a.jsonl")) == places(sources(folder))


def test_content_hash_of_one_file_depends_on_it_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINE)
    (alone,) = sources(tmp_path)
    (tmp_path / "0.jsonl").write_text(LINE * 2)
    together = sources(tmp_path)
    assert together[1] == alone and together[0].content_hash != alone.content_hash


def test_fingerprint_follows_content_and_path(tmp_path):
    def told():
        return source_hashes("ingest", load_recipe("demo", [f"ingest.inputs=[{tmp_path}]"]))[str(tmp_path)]

    (tmp_path / "a.jsonl").write_text(LINE)
    first = told()
    assert told() == first
    (tmp_path / "a.jsonl").write_text(LINE.replace("line", "word"))
    os.utime(tmp_path / "a.jsonl", ns=(1, 1))
    second = told()
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    assert len({first, second, told()}) == 3


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("/data/news.jsonl.gz", "news"),
        ("/data/web/", "web"),
        ("/data/web/*.jsonl", "web"),
        ("/data/*/2024/**", "data"),
        ("s3://bucket/crawl/2024.warc.gz", "2024"),
        ("s3://bucket/*.md", "bucket"),
    ],
)
def test_title_is_the_last_name_that_is_no_pattern(name, title):
    assert title_of(name) == title
