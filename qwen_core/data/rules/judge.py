"""All rules on any number of documents: which families judge which document, and in which order.

documents ─▶ source code ─▶ rules for code
         └─▶ prose ─▶ in words ─▶ Gopher quality ─▶ Gopher repetition ─▶ C4 (edits lines) ─▶ FineWeb
                  └─▶ Chinese, Japanese ─▶ their counterparts (edit lines)

What a document is written in decides, not its label alone: text in two languages is judged by the rules of the one
that it mostly is, and no rule counts the other's characters against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import UNSPACED
from qwen_core.data.index import Ints, batches
from qwen_core.data.rules import c4, chinese, code, fineweb, gopher_quality, gopher_repetition
from qwen_core.data.rules.batch import Batch, Bools, Broken, Floats, primary
from qwen_core.data.rules.edits import Edits, prose_batch

Objects = npt.NDArray[np.object_]


@dataclass
class Verdict:
    """What the rules say.

    Attributes:
        reasons: For each document the first rule's reason that it breaks, or `None`, [N].
        texts: New texts of kept documents of which something was taken out, by number.
        lines: Lines that went out of kept documents, by reason.
    """

    reasons: Objects
    texts: dict[int, str] = field(default_factory=dict)
    lines: Counter[str] = field(default_factory=Counter)


Family = Callable[[Batch, Mapping[str, Any]], Verdict]


def judge(texts: Sequence[str], languages: Sequence[str | None], limits: Mapping[str, Any]) -> Verdict:
    """Judge documents.

    Args:
        texts: The documents, [N].
        languages: Of each, such as `en`, `zh-Hant`, `code`; `None` where it is not known, [N].
        limits: The recipe's `filter` section: `languages`, and a mapping for each family.

    Returns:
        Reasons, edited texts and counts of lines.

    Raises:
        MissingDependencyError: A rule that was asked for needs a package that is not installed.
    """
    plain = np.asarray([primary(language) for language in languages], dtype=object)
    verdict = Verdict(np.full(len(texts), None, dtype=object))
    if wanted := list(limits["languages"]):  # `zh` asks for every kind of it, `zh-Hant` for one
        full = np.asarray(languages, dtype=object)
        verdict.reasons[~(np.isin(plain, wanted) | np.isin(full, wanted))] = "language"
    is_open, is_code = _is_open(verdict), plain == "code"
    _in_batches(_judge_code, texts, plain, np.flatnonzero(is_open & is_code), limits, verdict)
    _in_batches(_judge_prose, texts, plain, np.flatnonzero(is_open & ~is_code), limits, verdict)
    return verdict


def _in_batches(
    family: Family, texts: Sequence[str], languages: Objects, numbers: Ints, limits: Mapping[str, Any], verdict: Verdict
) -> None:
    chosen = [texts[number] for number in numbers.tolist()]
    for part, index in batches(chosen):
        answer = family(Batch(chosen[part], languages[numbers[part]].tolist(), index), limits)
        _take_over(verdict, answer, numbers[part])


def _judge_code(batch: Batch, limits: Mapping[str, Any]) -> Verdict:
    verdict = _nothing_said(batch)
    if limits["code"]["enabled"]:
        _settle(verdict, code.broken_rules(batch, limits["code"]))
    return verdict


def _judge_prose(batch: Batch, limits: Mapping[str, Any]) -> Verdict:
    batch = prose_batch(batch) if limits["passes_over_code"] else batch
    least = limits["chinese"]["min_han_ratio"]
    is_han = batch.han_ratio >= least
    in_words = batch.unspaced_ratio < least  # what is neither, Thai and the like, is asked for repetition only
    verdict = _nothing_said(batch)
    if limits["gopher_quality"]["enabled"] and in_words.any():
        _settle(verdict, gopher_quality.broken_rules(batch, limits["gopher_quality"]), in_words)
    if limits["chinese"]["enabled"] and is_han.any():
        edits = chinese.edit_lines(batch, limits["chinese"])
        _settle(verdict, chinese.broken_rules(batch, limits["chinese"], edits), is_han)
    else:
        edits = Edits.none(batch)
    _judge_repetition(batch, limits, is_han, verdict)
    _record(verdict, batch, edits, is_han)
    _judge_lines(batch, limits, in_words, verdict)
    return verdict


def _judge_repetition(batch: Batch, limits: Mapping[str, Any], is_han: Bools, verdict: Verdict) -> None:
    own, other = limits["gopher_repetition"], limits["chinese"]
    if own["enabled"]:
        _settle(verdict, gopher_repetition.broken_rules(batch, own), ~is_han)
    if not (own["enabled"] or (other["enabled"] and is_han.any())):
        return
    tokens = batch.tokens
    by_character = tokens.sums((batch.index.kinds[tokens.start] & UNSPACED) != 0) * 2 > tokens.counts

    def bounds(name: str) -> dict[int, Floats]:
        words, characters = (section[name] if section["enabled"] else {} for section in (own, other))
        return {
            size: np.where(by_character, characters.get(size, np.inf), words.get(size, np.inf))
            for size in sorted({*words, *characters})
        }

    top, duplicate = bounds("max_top_ngram_ratios"), bounds("max_duplicate_ngram_ratios")
    decided = ~_is_open(verdict)
    _settle(verdict, gopher_repetition.broken_ngram_rules(batch, top, duplicate, decided, ~by_character))


def _judge_lines(batch: Batch, limits: Mapping[str, Any], in_words: Bools, verdict: Verdict) -> None:
    """Apply C4 and FineWeb to what is left, by itself if that is little."""
    left = in_words & _is_open(verdict)
    if not (limits["c4"]["enabled"] or limits["fineweb"]["enabled"]) or not left.any():
        return
    if batch.index.lengths[left].sum() * 2 > batch.index.lengths.sum():
        _c4_and_fineweb(batch, limits, left, verdict)
        return
    numbers = np.flatnonzero(left)
    whole = batch.source.texts if batch.source else batch.texts
    part = Batch([whole[number] for number in numbers.tolist()], batch.languages[numbers].tolist())
    part = prose_batch(part) if batch.source else part
    answer = _nothing_said(part)
    _c4_and_fineweb(part, limits, np.ones(len(part), bool), answer)
    _take_over(verdict, answer, numbers)


def _c4_and_fineweb(batch: Batch, limits: Mapping[str, Any], members: Bools, verdict: Verdict) -> None:
    edits = Edits.none(batch)
    if limits["c4"]["enabled"]:
        edits, filler, no_brackets = c4.edit_lines(batch, limits["c4"])
        _settle(verdict, c4.broken_rules(batch, limits["c4"], edits, filler, no_brackets), members)
    if limits["fineweb"]["enabled"]:
        _settle(verdict, fineweb.broken_rules(batch, limits["fineweb"], edits), members)
    _record(verdict, batch, edits, members)


def _settle(verdict: Verdict, broken: Broken, members: Bools | None = None) -> None:
    """Give documents that have no reason yet the first one of a family."""
    for reason, mask in broken:
        verdict.reasons[_is_open(verdict) & (mask if members is None else mask & members)] = reason


def _record(verdict: Verdict, batch: Batch, edits: Edits, members: Bools) -> None:
    """Write kept documents anew of which something was taken out."""
    kept = members & _is_open(verdict)
    verdict.texts |= edits.texts(batch, kept)
    for reason, lines in edits.reasons.items():
        if number := int(batch.lines.sums(lines)[kept].sum()):
            verdict.lines[reason] += number


def _take_over(verdict: Verdict, part: Verdict, numbers: Ints) -> None:
    verdict.reasons[numbers] = part.reasons
    verdict.lines.update(part.lines)
    verdict.texts.update({int(numbers[number]): text for number, text in part.texts.items()})


def _is_open(verdict: Verdict) -> Bools:
    return np.asarray(verdict.reasons == None, dtype=bool)  # noqa: E711 - element by element


def _nothing_said(batch: Batch) -> Verdict:
    return Verdict(np.full(len(batch), None, dtype=object))
