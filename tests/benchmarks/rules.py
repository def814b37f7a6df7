"""The four English rule families beside datatrove's, per core of CPU time, and whether both keep the same documents.

Both read the same texts with line ends as `ingest` leaves them, and the same thresholds: datatrove's, with the settings
of `AS_DATATROVE` for ours. Text: the shared data, else the bundled documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from qwen_core.config.filter import Filter
from qwen_core.data.rules import judge
from tests.benchmarks.corpus import bundled_texts, is_here, megabytes, rows
from tests.benchmarks.measure import timed, times_as_fast

AS_DATATROVE: dict[str, Any] = {
    "passes_over_code": False,
    "gopher_quality": {"counts_signs": True},
    "c4": {
        "needs_terminal_punctuation": True,
        "joins_wrapped_lines": False,
        "removes_menus_only": False,
        "javascript_phrases": ("javascript",),
        "drops_curly_brackets": True,
    },
    "fineweb": {"passes_over_quotes": False, "joins_wrapped_lines": False, "min_lines": 0},
    "chinese": {"enabled": False, "min_han_ratio": 1.0},
}
"""What our `filter` section needs to say to decide as datatrove's defaults do."""

_FAMILIES = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
_FILES = {
    "pretrain/c4_demo.jsonl": 1,
    "pretrain/wiki_demo.txt": 1,
    "pretrain/en_tech.jsonl.gz": 12,
    "pretrain/en_books.jsonl.gz": 5,
    "neardup/en_news_reuters.jsonl.gz": 6,
}
"""Every how many-th document is taken, for datatrove needs minutes for some megabytes."""

Decide = Callable[[list[str]], list[str | None]]


def main() -> None:
    """Time each family by itself, then all in the order of FineWeb's pipeline."""
    texts = _texts()
    size = megabytes(texts)
    theirs = _theirs()
    print(f"Quality rules, {len(texts):,} English documents, {size:.1f} MB, CPU time of one core")
    for name in (*_FAMILIES, "together"):
        chosen = _FAMILIES if name == "together" else (name,)
        peers = [theirs[family] for family in chosen]
        decide = _ours(chosen)
        decide(texts[::50])  # tables and models are loaded once for each process
        _asked(peers, texts[0])
        seconds, ours = timed(lambda decide=decide: decide(texts))
        their_seconds, others = timed(lambda peers=peers: [_asked(peers, text) for text in texts], turns=1)
        equal = sum((mine is None) == (other is None) for mine, other in zip(ours, others, strict=True))
        print(
            f"  {name:18} {size / seconds:7.2f} MB/s   datatrove {size / their_seconds:6.3f} MB/s"
            f"{times_as_fast(their_seconds, seconds)}   equal decisions {equal / len(texts):.2%}"
        )
        kinds = Counter(
            (other, mine) for mine, other in zip(ours, others, strict=True) if (mine is None) != (other is None)
        )
        for (other, mine), number in kinds.most_common():
            print(f"      {number:4} times: datatrove {other or 'keeps'}, qwen-core {mine or 'keeps'}")


def _ours(families: tuple[str, ...]) -> Decide:
    settings = {name: dict(AS_DATATROVE.get(name, {})) for name in _FAMILIES}
    for name in _FAMILIES:
        settings[name]["enabled"] = name in families
    limits = Filter.model_validate(AS_DATATROVE | settings).model_dump()
    return lambda texts: list(judge(texts, ["en"] * len(texts), limits).reasons)


def _asked(filters: list[Any], text: str) -> str | None:
    """Ask datatrove's filters one after the other, as its pipeline does; each may edit the text for the next one."""
    document = Document(text=text, id="")
    for rule in filters:
        answer = rule.filter(document)
        if answer is not True:
            return str(answer[1])
    return None


def datatrove_reasons(texts: list[str]) -> list[str | None]:
    """Ask all four filters of datatrove."""
    filters = list(_theirs().values())
    return [_asked(filters, text) for text in texts]


def our_reasons(texts: list[str]) -> list[str | None]:
    """Ask all four families of ours."""
    return _ours(_FAMILIES)(texts)


def _theirs() -> dict[str, Any]:
    filters = (GopherQualityFilter(), GopherRepetitionFilter(), C4QualityFilter(), FineWebQualityFilter())
    return dict(zip(_FAMILIES, filters, strict=True))


def _texts() -> list[str]:
    files = {name: step for name, step in _FILES.items() if is_here(name)}
    texts = [row["text"] for name, step in files.items() for row in rows(name, step)] or bundled_texts("en")
    return [text.replace("\r\n", "\n") for text in texts]
