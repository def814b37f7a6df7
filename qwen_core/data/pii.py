"""Masking what identifies a person or opens a door: e-mail, phone, resident id, bank card, IP address, API key.

all texts ─▶ RE2 finds the few that may hold one ─▶ exact pattern and check on these ─▶ `<EMAIL>`, `<PHONE>`, ...

Numbers with a checksum are masked only where it holds. In source code only e-mail, IP address and API key are looked
for: a long number there is a number (as in StarCoder, Li et al., 2023). Full-width digits count as digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.pii_kinds import KINDS, Kind

__all__ = ["KINDS", "mask_pii"]

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_HAS_FULL_WIDTH = "[０-９＠]"

Bools = npt.NDArray[np.bool_]


def mask_pii(text: pa.ChunkedArray, is_code: Bools, kinds: Sequence[str]) -> tuple[pa.Array, Counter[str]]:
    """Mask texts.

    Args:
        text: Strings.
        is_code: Which of them are source code.
        kinds: Keys of `KINDS`, in any order.

    Returns:
        The masked texts, and how often each kind was masked.
    """
    array = pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.string())
    found: Counter[str] = Counter()
    is_wide = _matches(array, _HAS_FULL_WIDTH)
    for name, kind in KINDS.items():  # a longer number first, for a shorter kind would find a part of it
        if name not in kinds:
            continue
        hit = _matches(array, kind.candidate) | is_wide
        if not kind.in_code:
            hit &= ~is_code
        if hit.any():
            masked = [_replaced(value, name, kind, found) for value in array.filter(pa.array(hit)).to_pylist()]
            array = pc.replace_with_mask(array, pa.array(hit), pa.array(masked, array.type))
    return array, found


def _matches(array: pa.Array, pattern: str) -> Bools:
    return np.asarray(pc.fill_null(pc.match_substring_regex(array, pattern=pattern), False)).astype(bool)


def _replaced(text: str, name: str, kind: Kind, found: Counter[str]) -> str:
    """Mask one text. Searched is its half-width form, which is as long, and cut is the text itself."""
    parts, end = [], 0
    for match in kind.pattern.finditer(text.translate(_FULL_WIDTH) if _is_wide(text) else text):
        if kind.is_real(match):
            start, stop = match.span(match.lastgroup or 0)
            parts += [text[end:start], kind.mask]
            end = stop
            found[name] += 1
    return "".join([*parts, text[end:]]) if parts else text


def _is_wide(text: str) -> bool:
    return not text.isascii() and re.search(_HAS_FULL_WIDTH, text) is not None
