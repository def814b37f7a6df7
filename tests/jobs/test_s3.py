"""Object stores: inputs, artifacts and faults against an S3-compatible server over HTTP."""

import gzip
import json

import fsspec.implementations.memory
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from qwen_core.config import load_recipe
from qwen_core.data.read import Fields, Report, read_batches
from qwen_core.errors import InputError, PlatformError
from qwen_core.filesystem import check_bytes_come_back, open_filesystem
from qwen_core.jobs.listing import list_files
from qwen_core.jobs.sources import document_sources

LINE = json.dumps({"text": "a line of some length"}) + "\n"


@pytest.fixture
def bucket(object_store):
    """The address of a bucket with a few files."""
    filesystem, path = open_filesystem("s3://texts")
    filesystem.create_dir(path)
    files = {"a.jsonl": LINE.encode() * 1000, "web/b.jsonl.gz": gzip.compress(LINE.encode()), "web/c.md": b"# Head"}
    for name, raw in files.items():
        with filesystem.open_output_stream(f"{path}/{name}", compression=None) as out:
            out.write(raw)
    pq.write_table(pa.table({"text": ["one", "two"]}), f"{path}/web/d.parquet", filesystem=filesystem)
    return "s3://texts"


def texts(sources):
    report = Report()
    tables = [table for s in sources for table in read_batches(s.path, Fields(), report, start=s.start, end=s.end)]
    return [text for table in tables for text in table["text"].to_pylist()], report


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("", ["a.jsonl", "web/b.jsonl.gz", "web/c.md", "web/d.parquet"]),
        ("/web/", ["web/b.jsonl.gz", "web/c.md", "web/d.parquet"]),
        ("/a.jsonl", ["a.jsonl"]),
        ("/**/*.jsonl*", ["a.jsonl", "web/b.jsonl.gz"]),
        ("/web/*.md", ["web/c.md"]),
        ("/web/?.md", ["web/c.md"]),
        ("/w*", ["web/b.jsonl.gz", "web/c.md", "web/d.parquet"]),
    ],
)
def test_files_folders_and_globs_are_listed(bucket, name, found):
    assert [file.path for file in list_files(bucket + name).files] == [f"{bucket}/{path}" for path in found]


def test_every_format_is_read_in_ranges_too(bucket):
    sources = document_sources(load_recipe("demo", [f"ingest.inputs=[{bucket}]", "ingest.part_bytes=10000"]))
    assert len(sources) == 7 and all(source.content_hash for source in sources)
    found, report = texts(sources)
    assert len(found) == 1004 and found[-3:] == ["# Head", "one", "two"] and not report.drops


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://texts/nothing/", "no such file or folder"),
        ("s3://texts/nothing*.md", "no such file or folder"),
        ("s3://nowhere/at/all", "no such"),
        ("s3://nowhere", "no such bucket"),
        ("s3://*/a", "names no bucket"),
    ],
)
def test_missing_bucket_or_key_is_a_clear_error(bucket, name, message):
    with pytest.raises(InputError, match=message) as told:
        list_files(name)
    assert name in str(told.value)


def test_refused_credentials_are_a_clear_error(bucket, object_store):
    import httpx

    # From the next request on, the server wants keys of a user that it knows.
    httpx.post(f"{object_store}/moto-api/reset-auth", content=b"0")
    try:
        with pytest.raises(InputError, match="access refused: check AWS_ACCESS_KEY_ID"):
            list_files(bucket)
        found, report = [], Report()
        found += read_batches(f"{bucket}/a.jsonl", Fields(), report)
        assert report.drops == {"unreadable_file": 1} and not any(table.num_rows for table in found)
    finally:
        httpx.post(f"{object_store}/moto-api/reset-auth", content=b"inf")


def test_server_that_does_not_answer_is_a_clear_error(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be reached: check AWS_ENDPOINT_URL"):
        list_files(bucket)


def test_store_that_gives_the_bytes_back_is_left_as_it_was(bucket):
    check_bytes_come_back(bucket)
    assert not [file.path for file in list_files(bucket).files if "probe" in file.path]


def test_store_that_is_missing_or_keeps_other_bytes_is_told_with_the_remedy(object_store, monkeypatch):
    with pytest.raises(PlatformError, match="does not take files: no such bucket"):
        check_bytes_come_back("s3://nowhere/artifacts")

    class Frames(fsspec.implementations.memory.MemoryFileSystem):
        """Keeps the frames of a chunked upload as data."""

        def _open(self, path, mode="rb", **options):
            opened = super()._open(path, mode, **options)
            if mode == "wb":
                opened.write(b"820\r\n")
            return opened

    frames = pafs.PyFileSystem(pafs.FSSpecHandler(Frames()))
    monkeypatch.setattr("qwen_core.filesystem.open_filesystem", lambda uri: (frames, "/store"))
    with pytest.raises(PlatformError, match=r"other bytes .* \(2085 for 2080\).*S3_CHECKSUMS=when_required"):
        check_bytes_come_back("s3://old/store")
