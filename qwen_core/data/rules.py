"""Quality rules on batches of documents: each answers with one stable reason, or none.

Gopher (Rae et al., 2021, arXiv 2112.11446, table A1) and C4's thresholds; a CJK character counts as a word, and
rules on word length apply to text that is written in words. Source code keeps its own short list: prose rules would
drop most of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.words import Words

Bools = npt.NDArray[np.bool_]
_CJK_LANGUAGES = frozenset({"zh", "ja", "ko"})


def reasons(table: pa.Table, words: Words, thresholds: Mapping[str, Any]) -> npt.NDArray[np.object_]:
    """Judge documents.

    Args:
        table: With `text` and `language`.
        words: Of the same texts.
        thresholds: The recipe's `filter` section.

    Returns:
        For each document the first rule's reason that it breaks, or `None`.
    """
    text = table["text"]
    languages = np.asarray(table["language"].to_pylist(), dtype=object)
    is_code = languages == "code"
    is_prose = ~is_code
    in_words = is_prose & ~np.isin(languages, list(_CJK_LANGUAGES))
    count = words.counts
    mean_length, alpha_ratio = _word_figures(words)
    lines = np.maximum(1, _count(text, r"(?m)^.*\S.*$"))
    symbols = _count(text, r"#|\.\.\.|…")
    limits = thresholds
    broken: list[tuple[str, Bools]] = [
        ("language", _unwanted(languages, limits["languages"])),
        ("too_few_words", count < limits["min_words"]),
        ("too_many_words", count > limits["max_words"]),
        ("short_words", in_words & (mean_length < limits["min_mean_word_length"])),
        ("long_words", in_words & (mean_length > limits["max_mean_word_length"])),
        ("symbols", is_prose & (symbols > limits["max_symbol_word_ratio"] * np.maximum(1, count))),
        ("bullet_lines", is_prose & (_count(text, r"(?m)^\s*[-*•·●]") / lines > limits["max_bullet_line_ratio"])),
        (
            "ellipsis_lines",
            is_prose & (_count(text, r"(?m)(\.\.\.|…)\s*$") / lines > limits["max_ellipsis_line_ratio"]),
        ),
        ("few_alpha_words", is_prose & (alpha_ratio < limits["min_alpha_word_ratio"])),
        ("duplicate_lines", is_prose & (_duplicate_line_ratio(text) > limits["max_duplicate_line_ratio"])),
    ]
    answer = np.full(len(count), None, dtype=object)
    for reason, mask in reversed(broken):  # the first rule has the last word
        answer[mask] = reason
    return answer


def _word_figures(words: Words) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute each text's mean word length, and the share of its words that hold a letter."""
    vocabulary = pa.array(words.vocabulary, pa.string())
    length = np.asarray(pc.utf8_length(vocabulary), dtype=np.float64)
    has_letter = np.asarray(pc.match_substring_regex(vocabulary, r"\p{L}"), dtype=np.float64)
    size = np.maximum(1, words.counts)
    return _sums(length[words.codes], words.offsets) / size, _sums(has_letter[words.codes], words.offsets) / size


def _sums(values: npt.NDArray[np.float64], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    total = np.concatenate(([0.0], np.cumsum(values)))
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])


def _duplicate_line_ratio(text: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Compute the share of each text's lines (with content) that stand in it before."""
    split = pc.split_pattern(text.combine_chunks(), "\n")
    split = pa.concat_arrays(split.chunks) if isinstance(split, pa.ChunkedArray) else split
    document = np.asarray(pc.list_parent_indices(split))
    flat = pc.utf8_trim_whitespace(pc.list_flatten(split))
    has_content = np.asarray(pc.greater(pc.utf8_length(flat), 0))
    codes = np.asarray(flat.dictionary_encode().indices)[has_content].astype(np.int64)
    document = document[has_content].astype(np.int64)
    total = np.bincount(document, minlength=len(text))
    distinct = np.unique(document * (codes.max(initial=0) + 1) + codes)
    kept = np.bincount(distinct // (codes.max(initial=0) + 1), minlength=len(text))
    return np.asarray(1.0 - kept / np.maximum(1, total)) * (total > 0)


def _unwanted(languages: npt.NDArray[np.object_], wanted: Any) -> Bools:
    return ~np.isin(languages, list(wanted)) if wanted else np.zeros(len(languages), dtype=bool)


def _count(text: pa.ChunkedArray, pattern: str) -> npt.NDArray[np.int64]:
    return np.asarray(pc.count_substring_regex(text, pattern=pattern)).astype(np.int64)
