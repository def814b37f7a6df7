"""From texts to labels by what comes with the installation: scripts, n-grams, letters.

text ─▶ up to three pieces of a long one ─▶ letters by script ─▶ one language has the script to itself? ─▶ its label
                              └─▶ else without links, tags and words in other scripts ─▶ n-grams ─▶ the likeliest
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.language.candidates import SOLE, decide, has_foreign
from qwen_core.data.language.letters import HAN_KINDS, NAMES, count_letters
from qwen_core.data.language.ngrams import class_scores

Ints = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float32]
Labels = tuple[Strings, Floats, Strings]

PRIOR_WEIGHT: Final = 0.3
_PIECE_BYTES = 512
_LONG_LETTERS = 200
_HAN, _KANA, _HANGUL, _LATIN = (NAMES.index(name) for name in ("Hani", "Jpan", "Kore", "Latn"))
# A character that stands for a syllable or a word says as much as three letters; in a longer text Latin letters beside
# it are mostly names, links and code, so there as much as ten.
_EAST_ASIAN = np.isin(np.arange(len(NAMES)), [_HAN, _KANA, _HANGUL])
_JAPANESE_RATIO = 0.05  # of kana and Japanese characters to Han: less is a quotation in a Chinese text
_CANTONESE_RATIO = 0.03
_MIXED_SHARE = 0.95
_MARKUP = r"(?:https?://|www\.)\S+|</?[a-zA-Z][^<>]*>|\S+@\S+"


def embedded_labels(text: pa.Array, prior_weight: float = PRIOR_WEIGHT) -> Labels:
    """Label texts with the embedded model.

    Args:
        text: Strings, no nulls.
        prior_weight: How much the size of a language on the web counts between those of one script, 0 to 1.

    Returns:
        ISO 639 languages (`und` without letters), scores from 0 to 1, ISO 15924 scripts (`Zyyy` without letters).
    """
    data, offsets = _bytes(text)
    starts, ends, owners = _pieces(data, offsets)
    scripts, kinds, groups = (_sum_up(found, owners, len(text)) for found in count_letters(data, starts, ends))
    best, share = _main_script(scripts, kinds[:, HAN_KINDS.index("japanese")])
    names = np.array(NAMES)
    language = np.array([SOLE.get(name, "und") for name in NAMES], "U8")[best]
    score = share.astype(np.float32)
    rows = np.flatnonzero((share > 0) & (language == "und"))
    if len(rows):
        chosen = _tidy(text.take(pa.array(rows)), best[rows] == _LATIN, share[rows] < _MIXED_SHARE)
        foreign = has_foreign(groups[rows], scripts[rows].sum(1))
        language[rows], chance = decide(_tempered(chosen), best[rows], foreign, prior_weight)
        score[rows] *= chance
    simplified, traditional, cantonese = (
        kinds[:, HAN_KINDS.index(kind)] for kind in ("simplified", "traditional", "cantonese")
    )
    is_chinese = (best == _HAN) & (share > 0)
    script = np.where(is_chinese, np.where(traditional > simplified, "Hant", "Hans"), names[best])
    language[is_chinese & (cantonese > _CANTONESE_RATIO * scripts[:, _HAN])] = "yue"
    return language, score, np.where(share > 0, script, "Zyyy")


def _main_script(scripts: Ints, japanese: Ints) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Choose the script that most of a text is in; give its share too, 0 where there is no letter."""
    kana, han = scripts[:, _KANA], scripts[:, _HAN]
    # Kana decide; so do a few of them beside characters that only Japan writes.
    has_japanese = (kana > 0) & (japanese > 0) & (kana + japanese > _JAPANESE_RATIO * han)
    is_japanese = (kana > _JAPANESE_RATIO * han) | has_japanese
    is_long = scripts.sum(1) > _LONG_LETTERS
    weighed = scripts * np.where(_EAST_ASIAN, np.where(is_long, 10.0, 3.0)[:, None], 1.0)
    both = weighed[:, _KANA] + weighed[:, _HAN]
    weighed[:, _KANA] = np.where(is_japanese, both, 0)
    weighed[:, _HAN] = np.where(is_japanese, 0, both)
    return weighed.argmax(1), weighed.max(1) / np.maximum(weighed.sum(1), 1)


def _tidy(text: pa.Array, is_latin: npt.NDArray[np.bool_], is_mixed: npt.NDArray[np.bool_]) -> pa.Array:
    """Take out what speaks for no language: markup, links, words in other scripts; capitals become small."""
    text = _where(pc.utf8_is_upper(text), pc.utf8_lower, text)
    has_markup = pc.match_substring_regex(text, pattern=r"://|www\.|</|/>|@")
    text = _where(has_markup, lambda some: _blank(some, _MARKUP), text)
    text = _where(pa.array(is_mixed & is_latin), lambda some: _blank(some, r"[^\p{Latin}\P{L}]+"), text)
    return _where(pa.array(is_mixed & ~is_latin), lambda some: _blank(some, r"\p{Latin}+"), text)


def _blank(text: pa.Array, pattern: str) -> pa.Array:
    return pc.replace_substring_regex(text, pattern=pattern, replacement=" ")


def _where(condition: pa.Array, change: Callable[[pa.Array], pa.Array], text: pa.Array) -> pa.Array:
    """Change some texts."""
    if not pc.any(condition).as_py():
        return text
    return pc.replace_with_mask(text, condition, change(text.filter(condition)))


def _tempered(text: pa.Array) -> Floats:
    """Score texts by their n-grams, over the square root of the length that was read."""
    data, offsets = _bytes(text)
    starts, ends, owners = _pieces(data, offsets)
    length = np.bincount(owners, weights=ends - starts, minlength=len(text))
    scores = class_scores(data, starts, ends, owners, len(text))
    return scores / np.sqrt(np.maximum(1, length)).astype(np.float32)[:, None]


def _bytes(text: pa.Array) -> tuple[npt.NDArray[np.uint8], Ints]:
    """Look at the bytes of a string array."""
    large = text.cast(pa.large_string())
    _, offsets, data = large.buffers()
    bounds = np.frombuffer(offsets, np.int64)[large.offset : large.offset + len(large) + 1]
    return np.frombuffer(data if data is not None else b"", np.uint8), bounds


def _pieces(data: npt.NDArray[np.uint8], offsets: Ints) -> tuple[Ints, Ints, Ints]:
    """Cut what is read: a short text whole, of a long one its beginning, middle and end.

    Returns:
        Starts, ends and the text of each piece.
    """
    begins, stops = offsets[:-1], offsets[1:]
    length = stops - begins
    is_long = length > 3 * _PIECE_BYTES
    count = np.where(is_long, 3, 1)
    owners = np.repeat(np.arange(len(length)), count)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(count) - count, count)
    span = np.where(is_long, _PIECE_BYTES, length)[owners]
    starts = begins[owners] + number * (length[owners] - span) // 2
    for _ in range(3):  # on to the first byte of a character
        starts = starts + ((data.take(starts, mode="clip") & 0xC0) == 0x80 if len(data) else 0)
    return starts, np.minimum(starts + span, stops[owners]), owners


def _sum_up(counts: Ints, owners: Ints, num_texts: int) -> Ints:
    if len(owners) == num_texts:
        return counts
    return np.asarray(np.add.reduceat(counts, np.searchsorted(owners, np.arange(num_texts))))
