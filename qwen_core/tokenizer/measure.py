"""How well a tokenizer serves each language."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.tokenizer.use import ChatTokenizer

# Chinese and Japanese put no blanks between words, so each character counts as one; Korean does.
_WORD = r"[\p{Han}\p{Hiragana}\p{Katakana}]|[^\s\p{Z}\p{Han}\p{Hiragana}\p{Katakana}]+"


def count_words(texts: Sequence[str]) -> int:
    """Count words: runs between blanks, and each Chinese or Japanese character by itself.

    Args:
        texts: Any texts.

    Returns:
        Their words, in all.
    """
    return int(pc.sum(pc.count_substring_regex(pa.array(texts, pa.string()), _WORD)).as_py() or 0)


def measure(tokenizer: ChatTokenizer, texts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Measure a tokenizer on texts by language; take texts that it was not trained on.

    Args:
        tokenizer: The tokenizer.
        texts: Sample texts by language; empty samples are left out.

    Returns:
        For each language `bytes_per_token/<language>` (higher is denser), `fertility/<language>` (tokens for each word,
        after Rust et al., 2021; for each character of Chinese and Japanese), `single_byte_share/<language>` (tokens
        that stand for one byte of a longer character or a lone letter), `unknown_share/<language>` (tokens that stand
        for what the vocabulary cannot spell) and `round_trip_share/<language>` (texts that decode to themselves, up
        to Unicode's composed form).
    """
    sizes, unknown = tokenizer.token_bytes(), tokenizer.unknown_id
    figures: dict[str, float] = {}
    for language, sample in texts.items():
        flat, lengths = tokenizer.encode_documents(sample)
        if not len(flat):
            continue
        written = [tokenizer.decode(ids.tolist()) for ids in np.split(flat, lengths.cumsum()[:-1])]
        same = [_composed(one) == _composed(other) for one, other in zip(written, sample, strict=True)]
        # Of the text itself: an unknown token stands for bytes that its own entry does not tell.
        num_bytes = sum(len(text.encode(errors="replace")) for text in sample)
        figures[f"bytes_per_token/{language}"] = num_bytes / len(flat)
        figures[f"fertility/{language}"] = len(flat) / max(1, count_words(sample))
        figures[f"single_byte_share/{language}"] = float((sizes[flat] == 1).mean())
        figures[f"unknown_share/{language}"] = float((flat == unknown).mean()) if unknown is not None else 0.0
        figures[f"round_trip_share/{language}"] = float(np.mean(same))
    return figures


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
