"""Crawl files: good ones, and every fault that crawlers are known to write."""

import gzip
import os
from pathlib import Path

import pytest

from tests.data.test_read import read, texts

SHARED = Path(os.environ.get("QWEN_CORE_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data") / "web"
PAGE = b"<html><body><nav>menu</nav><main><p>%s</p></main></body></html>"


def warc(
    body, url="http://a.example/", kind="response", head=b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n", length=0
):
    content = head + b"\r\n" + body if kind == "response" else body
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>\r\n"
        f"Content-Type: {'application/http; msgtype=response' if kind == 'response' else 'text/plain'}\r\n"
        f"Content-Length: {length or len(content)}\r\n\r\n"
    )
    return header.encode() + content + b"\r\n\r\n"


def pages(*stories):
    return [warc(PAGE % story.encode(), f"http://a.example/{i}") for i, story in enumerate(stories)]


@pytest.mark.parametrize("is_packed", [False, True])
def test_pages_give_their_main_text_address_and_time(tmp_path, is_packed):
    records = pages("The story of a small river.", "The story of a hill.")
    path = tmp_path / ("a.warc.gz" if is_packed else "a.warc")
    path.write_bytes(b"".join(gzip.compress(record) if is_packed else record for record in records))
    rows, report = read(path)
    assert [(r["text"], r["url"], r["timestamp"], r["position"]) for r in rows] == [
        ("The story of a small river.", "http://a.example/0", "2026-01-01T00:00:00Z", "0"),
        ("The story of a hill.", "http://a.example/1", "2026-01-01T00:00:00Z", "1"),
    ]
    assert not report.drops


def test_text_records_are_taken_as_they_are(tmp_path):
    (tmp_path / "a.wet").write_bytes(warc("水の話".encode(), kind="conversion"))
    assert texts(tmp_path / "a.wet") == ["水の話"]


@pytest.mark.parametrize("is_packed", [False, True])
def test_reading_goes_on_behind_each_broken_record(tmp_path, is_packed):
    records = pages("one", "two", "three", "four", "five", "six")
    for number in (1, 2, 4):
        if is_packed:
            packed = bytearray(gzip.compress(records[number]))
            packed[20:40] = b"\xff" * 20
            records[number] = bytes(packed)
        else:
            records[number] = records[number].replace(b"WARC/1.0", b"WURC/1.0")
    whole = [gzip.compress(r) if is_packed and n not in (1, 2, 4) else r for n, r in enumerate(records)]
    path = tmp_path / ("a.warc.gz" if is_packed else "a.warc")
    path.write_bytes(b"".join(whole))
    rows, report = read(path)
    assert [r["text"] for r in rows] == ["one", "four", "six"]
    # Without members of their own, two broken records that touch are one.
    assert report.drops == {"broken_record": 3 if is_packed else 2} and report.faults[0]["reason"] == "broken_record"
    # Nothing is told of what stands in a broken record, but all that is read has its number.
    assert [r["position"] for r in rows] == ["0", "1", "2"]


def test_wrong_length_and_truncation_cost_only_their_records(tmp_path):
    one, two, three = pages("one", "two", "three")
    short = warc(PAGE % b"long body", length=150)
    (tmp_path / "a.warc").write_bytes(one + short + two + three[: len(three) // 3])
    rows, report = read(tmp_path / "a.warc")
    assert "one" in [r["text"] for r in rows] and "two" in [r["text"] for r in rows]
    assert report.drops["broken_record"] >= 1


def test_body_is_unchunked_and_uncoded_where_it_really_is_chunked_and_coded(tmp_path):
    page = PAGE % b"hidden words"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(page), page)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n"
    gzipped = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n"
    records = [
        warc(chunked, head=head),
        warc(page, head=head),
        warc(gzip.compress(page), head=gzipped),
        warc(page, head=gzipped),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    assert texts(tmp_path / "a.warc") == ["hidden words"] * 4


def test_charset_of_a_page_is_that_of_its_bytes(tmp_path):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=%s\r\n"
    chinese = "<html><body><p>这是一个用国标编码写的网页</p></body></html>"
    records = [
        warc(chinese.encode("gb18030"), head=head % b"gb2312"),
        warc(chinese.replace("<body>", '<meta charset="gbk"><body>').encode("gbk"), head=head % b"gbk"),
        warc(chinese.encode(), head=head % b"iso-8859-1"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    assert texts(tmp_path / "a.warc") == ["这是一个用国标编码写的网页"] * 3


def test_what_is_no_page_is_counted(tmp_path):
    records = [
        warc(b"{}", head=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"),
        warc(PAGE % b"gone", head=b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n"),
        warc(b"words of a text", head=b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),
        warc(PAGE % (b"x" * 5000)),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    rows, report = read(tmp_path / "a.warc", max_record_bytes=3000)
    assert [r["text"] for r in rows] == ["words of a text"]
    assert report.drops == {"not_html": 1, "http_status": 1, "record_too_large": 1} and report.records == 4


def test_file_that_is_no_crawl_is_one_fault(tmp_path):
    (tmp_path / "a.warc").write_bytes(b"nothing of the kind\n" * 100)
    rows, report = read(tmp_path / "a.warc")
    assert not rows and report.drops == {"broken_record": 1}


EXAMPLES = {
    "bad.arc": (1, {"broken_record": 3}),
    "example-bad-non-chunked.warc.gz": (1, {}),
    "example-digest.warc": (0, {}),
    "example-iana.org-chunked.warc": (1, {}),
    "example-resource.warc.gz": (1, {}),
    "example-space-in-target-uri.warc.gz": (0, {"not_html": 1}),
    "example-space-in-url.arc": (1, {}),
    "example-trunc.warc": (1, {"broken_record": 1}),
    "example-wget-bad-target-uri.warc.gz": (1, {"not_html": 2}),
    "example-wrong-chunks.warc.gz": (1, {}),
    "example.arc": (1, {}),
    "example.arc.gz": (1, {}),
    "example.warc": (1, {}),
    "example.warc.gz": (1, {}),
    "post-test.warc.gz": (0, {"not_html": 3}),
}


@pytest.mark.skipif(not SHARED.exists(), reason="the shared test data are not there")
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_known_edge_case_gives_its_page_or_a_count(name):
    rows, report = read(SHARED / "warcio" / name)
    assert (len(rows), dict(report.drops)) == EXAMPLES[name]
    assert report.records == len(rows) + report.drops.total()
    assert all(row["url"] and " " not in row["url"] and "<" not in row["url"] for row in rows)
