"""Keyword lists: which documents hold too many listed terms, and which terms these are.

    lists ─▶ one expression for each language ─▶ RE2 finds the documents that may hold a term
                                                  └─▶ on these few: every hit, counted by term

A term matches whole words, judged at each of its ends: an end that is a letter or digit of a script with spaces must
not go on in one. So `ass` does not match `class`, `c++` matches before a space and before a letter, and a Chinese term
matches anywhere. Case is ignored. Plurals are other terms.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.keyword_lists import EXPRESSION, read_keywords

__all__ = ["EVERY_LANGUAGE", "Hits", "Keywords", "find_keywords", "keywords_of", "read_keywords"]

EVERY_LANGUAGE = "*"
"""Stands for the lists that apply to documents of every language."""

# RE2 has neither lookaround nor difference of classes: a bound is a character that is no letter, mark or digit of a
# script with spaces, told by what is left.
_RE2_BOUND = r"[\p{Z}\p{S}\p{Cc}\p{Cf}\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]"
_UNSPACED = r"\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = rf"[^\W{_UNSPACED}]"
_WORD_SIGN = re.compile(_WORD)
_MARKED = re.compile("\x02([^\x02\x03]*)\x03")
_EXPRESSION_BYTES = 8000  # RE2 bounds the memory of one expression; much larger ones take a slow way


@dataclass(frozen=True)
class Keywords:
    """Terms by language, ready to be sent to workers.

    Attributes:
        terms: Lower-case terms, and expressions that begin with `re:`, by language.
        is_everywhere: Apply every list to every document, whatever its language.
    """

    terms: tuple[tuple[str, tuple[str, ...]], ...]
    is_everywhere: bool = False

    def of(self, language: str | None) -> tuple[str, ...]:
        """List the terms for documents of a language.

        Args:
            language: Of a document.

        Returns:
            Terms, sorted.
        """
        lists = dict(self.terms)
        chosen = list(lists) if self.is_everywhere else [language or "", EVERY_LANGUAGE]
        return tuple(sorted({term for name in chosen for term in lists.get(name, ())}))


@dataclass(frozen=True)
class Hits:
    """What was found in a batch of documents.

    Attributes:
        counts: Hits in each document.
        ratios: Characters in hits to all characters of each document.
        terms: Documents that hold a term, by term; an expression stands under itself.
    """

    counts: npt.NDArray[np.int64]
    ratios: npt.NDArray[np.float64]
    terms: Counter[str]

    def is_blocked(self, min_hits: int, max_ratio: float) -> npt.NDArray[np.bool_]:
        """Decide which documents hold too many.

        Args:
            min_hits: Fewer hits are let pass.
            max_ratio: Up to this share of characters in hits a document is let pass, 0 to 1.

        Returns:
            One answer for each document.
        """
        return (self.counts >= min_hits) & (self.ratios > max_ratio)


def keywords_of(terms: Mapping[str, Iterable[str]], is_everywhere: bool = False) -> Keywords:
    """Make lists ready for use.

    Args:
        terms: By language, as `read_keywords` gave them.
        is_everywhere: Apply every list to every document, whatever its language.

    Returns:
        The lists.
    """
    return Keywords(tuple((name, tuple(listed)) for name, listed in sorted(terms.items())), is_everywhere)


def find_keywords(text: pa.Array | pa.ChunkedArray, languages: Sequence[str | None], keywords: Keywords) -> Hits:
    """Find the listed terms in documents.

    Args:
        text: Strings.
        languages: Of each document.
        keywords: The lists.

    Returns:
        What was found.
    """
    counts, ratios = np.zeros(len(text), np.int64), np.zeros(len(text))
    found: Counter[str] = Counter()
    groups: dict[tuple[str, ...], set[str | None]] = {}
    for name in set(languages):
        groups.setdefault(keywords.of(name), set()).add(name)
    for terms, names in groups.items():
        if not terms:
            continue
        rows = np.flatnonzero(np.fromiter((name in names for name in languages), bool, len(languages)))
        for row, hits in _hits(text.take(pa.array(rows)), rows, terms):
            counts[row] = sum(count for _, count, _ in hits)
            ratios[row] = sum(size for _, _, size in hits) / max(1, len(text[int(row)].as_py()))
            found.update(term for term, _, _ in hits)
    return Hits(counts, np.minimum(ratios, 1.0), found)


def _hits(
    text: pa.Array | pa.ChunkedArray, rows: npt.NDArray[np.int64], terms: tuple[str, ...]
) -> Iterator[tuple[int, list[tuple[str, int, int]]]]:
    """Yield the documents with hits: row, and for each term its count and its characters."""
    held: dict[int, set[str]] = {}
    for search in _searches(terms):
        matches = pc.fill_null(pc.match_substring_regex(text, pattern=search.document), False)
        places = np.flatnonzero(np.asarray(matches))
        for place, names in zip(places.tolist(), search.held(text.take(pa.array(places))), strict=True):
            held.setdefault(place, set()).update(names)
    for place in sorted(held):
        hits = list(_count(text[place].as_py().lower(), tuple(sorted(held[place]))))
        if hits:
            yield int(rows[place]), hits


def _count(text: str, terms: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
    """Count the hits of the terms that a document may hold; where several begin, the longest is the hit."""
    plain = tuple(term for term in terms if not term.startswith(EXPRESSION))
    if plain:
        for term, count in Counter(match[0] for match in _exact(plain).finditer(text)).items():
            yield term, count, count * len(term)
    for term in (name for name in terms if name.startswith(EXPRESSION)):
        sizes = [match.end() - match.start() for match in _expression(term).finditer(text)]
        if sizes:
            yield term, len(sizes), sum(sizes)


@dataclass(frozen=True)
class _Search:
    """Finds the documents that hold some terms, and which of the terms they may be.

    Attributes:
        document: RE2; every document with a hit matches.
        term: RE2 for the terms alone, in a group; `None` for an expression.
        known: For each term itself and the terms that it begins with.
    """

    document: str
    term: str | None
    known: dict[str, tuple[str, ...]]

    def held(self, text: pa.Array | pa.ChunkedArray) -> list[set[str]]:
        """List the terms that each of the documents found may hold."""
        if self.term is None:
            return [set(self.known)] * len(text)
        marked = pc.replace_substring_regex(text, pattern=self.term, replacement="\x02\\1\x03").to_pylist()
        return [
            {name for match in _MARKED.findall(value) for name in self.known.get(match.lower(), ())} for value in marked
        ]


@functools.lru_cache(maxsize=64)
def _searches(terms: tuple[str, ...]) -> list[_Search]:
    """Write the RE2 expressions of a list, alike bounds together."""
    groups: dict[tuple[bool, bool, bool], list[str]] = {}
    for term in terms:
        if not term.startswith(EXPRESSION):
            groups.setdefault((*_is_word_at_ends(term), term.isascii()), []).append(term)
    searches = [
        _Search(f"(?i:{term.removeprefix(EXPRESSION)})", None, {term: (term,)})
        for term in terms
        if term.startswith(EXPRESSION)
    ]
    for (left, right, _), listed in groups.items():
        before = rf"(?:^|{_RE2_BOUND})" if left else ""
        after = rf"(?:$|{_RE2_BOUND})" if right else ""
        for some in _portions(listed):
            either = "|".join(map(re.escape, sorted(some, key=len, reverse=True)))
            known = {term: tuple(other for other in _beginnings(term) if other in some) for term in some}
            # Without the bound after it, for two hits may share the one between them.
            searches.append(_Search(f"(?i:{before}(?:{either}){after})", f"(?i:{before}({either}))", known))
    return searches


def _portions(terms: list[str]) -> Iterator[set[str]]:
    """Cut a list where an expression of its terms would become too large for RE2's fast way."""
    size = 0
    portion: set[str] = set()
    for term in terms:
        size += len(term.encode())
        portion.add(term)
        if size >= _EXPRESSION_BYTES:
            yield portion
            size, portion = 0, set()
    if portion:
        yield portion


def _beginnings(term: str) -> Iterator[str]:
    return (term[:size] for size in range(1, len(term) + 1))


def _is_word_at_ends(term: str) -> tuple[bool, bool]:
    return _WORD_SIGN.match(term[0]) is not None, _WORD_SIGN.match(term[-1]) is not None


@functools.lru_cache(maxsize=4096)
def _exact(terms: tuple[str, ...]) -> re.Pattern[str]:
    """Write a Python expression that finds every hit of some terms, the longest first."""
    parts = []
    for term in sorted(terms, key=len, reverse=True):
        left, right = _is_word_at_ends(term)
        parts.append((rf"(?<!{_WORD})" if left else "") + re.escape(term) + (rf"(?!{_WORD})" if right else ""))
    return re.compile("|".join(parts))


@functools.lru_cache(maxsize=4096)
def _expression(term: str) -> re.Pattern[str]:
    return re.compile(term.removeprefix(EXPRESSION), re.IGNORECASE)
