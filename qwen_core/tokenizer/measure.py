"""How well a tokenizer serves each language."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from qwen_core.tokenizer.use import ChatTokenizer


def measure(tokenizer: ChatTokenizer, texts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Measure a tokenizer on texts by language.

    Args:
        tokenizer: The tokenizer.
        texts: Sample texts by language; empty samples are left out.

    Returns:
        For each language `bytes_per_token/<language>` (higher is denser), `single_byte_share/<language>` (tokens that
        stand for one byte of a longer character or a lone letter) and `round_trip_share/<language>` (texts that
        decode to their NFC form).
    """
    sizes = tokenizer.token_bytes()
    figures: dict[str, float] = {}
    for language, sample in texts.items():
        encoded = tokenizer.encode_batch(sample)
        flat = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in encoded]) if encoded else np.zeros(0, int)
        if not len(flat):
            continue
        same = [
            tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
            for ids, text in zip(encoded, sample, strict=True)
        ]
        figures[f"bytes_per_token/{language}"] = float(sizes[flat].sum() / len(flat))
        figures[f"single_byte_share/{language}"] = float((sizes[flat] == 1).mean())
        figures[f"round_trip_share/{language}"] = float(np.mean(same))
    return figures
