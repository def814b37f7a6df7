"""Main text of web pages."""

import gzip
import json
import os
from pathlib import Path

import pytest

from qwen_core.data.extract import licence_of, main_text
from tests.benchmarks.extract import compare_bags, text_of

SHARED = Path(os.environ.get("QWEN_CORE_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data") / "web"


def test_menus_comments_and_scripts_are_left_out():
    html = (
        "<html><head><title>T</title><script>var x = 1</script></head><body><nav>menu</nav><main><h1>Head</h1>"
        "<p>The story.</p></main><footer>imprint</footer></body></html>"
    )
    text = main_text(html)
    assert "Head" in text and "The story." in text
    assert not any(word in text for word in ("menu", "imprint", "var x"))


def test_page_whose_content_the_heuristics_miss_is_given_without_its_frame():
    story = "<p>A long story of many words in an unusual place.</p>" * 20
    text = main_text(f'<html><body><nav>menu</nav><div class="comments sidebar">{story}</div></body></html>')
    assert text.count("A long story") == 20 and "menu" not in text


def test_empty_and_broken_pages_give_what_there_is():
    assert main_text("") == ""
    assert main_text("<p>half a <b>page") == "half a page"


@pytest.mark.parametrize(
    "html",
    ['<link rel="license" href="https://l.example/by">', "<a href='https://l.example/by' class=x rel=license>by</a>"],
)
def test_licence_is_read_off_its_link(html):
    assert licence_of(html) == "https://l.example/by"
    assert licence_of("no license here") is None


@pytest.mark.skipif(not SHARED.exists(), reason="the shared test data are not there")
def test_extraction_is_no_worse_than_measured():
    with gzip.open(SHARED / "readability_pages.jsonl.gz") as file:
        pages = [json.loads(line) for line in file][::4]
    scores = [compare_bags(main_text(page["html"]), text_of(page["expected_html"])) for page in pages]
    assert sum(f1 for f1, _, _ in scores) / len(scores) > 0.93
