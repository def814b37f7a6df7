"""Main text of web pages: F1, precision, recall and speed beside resiliparse's and trafilatura's defaults."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable

from tests.benchmarks.corpus import is_here, megabytes, rows
from tests.benchmarks.measure import timed

_PAGES = "web/readability_pages.jsonl.gz"
# A Han or Kana character or a Hangul syllable counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
_SKIPPED = re.compile(r"<(script|style)\b.*?</\1>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(?:p|div|br|li|ul|ol|h\d|tr|td|th|table|section|article|pre|blockquote|figure|figcaption|d[dlt]|hr|header|footer)"
    r"\b[^>]*>",
    re.IGNORECASE,
)


def text_of(expected_html: str) -> str:
    """Strip tags; a block's tag parts words, an inline one does not.

    Args:
        expected_html: What a reader wants of a page.

    Returns:
        Plain text.
    """
    spaced = _BLOCK.sub(" ", _SKIPPED.sub(" ", expected_html))
    return html.unescape(re.sub(r"<[^>]+>", "", spaced))


def compare_bags(found: str, expected: str) -> tuple[float, float, float]:
    """Compare two texts as bags of words.

    Args:
        found: What was extracted.
        expected: What should have been.

    Returns:
        F1, precision and recall.
    """
    ours, theirs = (Counter(_WORD.findall(text.lower())) for text in (found, expected))
    hits = (ours & theirs).total()
    precision, recall = hits / max(1, ours.total()), hits / max(1, theirs.total())
    return 2 * precision * recall / max(1e-9, precision + recall), precision, recall


def main() -> None:
    """Print a table; every page counts alike."""
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    from qwen_core.data.extract import main_text

    if not is_here(_PAGES):
        print(f"Main text of web pages: skipped, {_PAGES} is not there")
        return
    pages = rows(_PAGES)
    expected = [text_of(page["expected_html"]) for page in pages]
    contenders: dict[str, Callable[[str], str | None]] = {
        "qwen-core": main_text,
        "resiliparse, default": lambda page: extract_plain_text(page, main_content=True),
        "trafilatura, default": trafilatura.extract,
        "trafilatura, fast": lambda page: trafilatura.extract(page, fast=True),
        "trafilatura, recall": lambda page: trafilatura.extract(page, favor_recall=True),
    }
    size = megabytes(page["html"] for page in pages)
    print(f"Main text of {len(pages)} web pages, {size:.1f} MB, F1 of words, one core")
    for name, extract in contenders.items():
        seconds, found = timed(lambda extract=extract: [extract(page["html"]) or "" for page in pages], turns=1)
        scores = [compare_bags(text, wanted) for text, wanted in zip(found, expected, strict=True)]
        f1, precision, recall = (sum(column) / len(pages) for column in zip(*scores, strict=True))
        print(f"  {name:28} F1 {f1:.4f}   precision {precision:.4f}   recall {recall:.4f} {size / seconds:8,.1f} MB/s")
