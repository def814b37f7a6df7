"""Texts as arrays of character codes, folded by one table: what both views of a classifier are made from.

texts ─▶ windows of long ones ─▶ UTF-32 ─▶ lower case, full width as half width, one kind of space ─▶ codes
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import SPACE, UNSPACED, WORD, kinds

WINDOW_CHARS = 600
"""Of a text longer than three of these, the classifiers see the beginning, the middle and the end."""

_SPACE = np.uint32(32)
_NEWLINE = np.uint32(10)
_FOLDED = 0x10000  # beyond the basic plane nothing is folded but the letters of dead languages


@dataclass(frozen=True)
class Codes:
    """Folded characters of many texts, each with a space before and after it.

    Attributes:
        values: Code points of all texts.
        ends: Where each text ends in `values`.
    """

    values: npt.NDArray[np.uint32]
    ends: npt.NDArray[np.int64]


def codes_of(texts: Sequence[str]) -> Codes:
    """Fold texts.

    Args:
        texts: Any; of long ones, three windows.

    Returns:
        Their codes.
    """
    seen = [text if len(text) <= 3 * WINDOW_CHARS else _windows(text) for text in texts]
    lengths = np.fromiter(map(len, seen), np.int64, len(seen)) + 2
    joined = f" {'  '.join(seen)} " if seen else ""
    raw = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    return Codes(_folds()[raw], np.cumsum(lengths))


def is_unspaced(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Tell which characters belong to scripts without spaces, such as Han and Kana.

    Args:
        values: Code points.

    Returns:
        One answer for each.
    """
    return np.asarray(kinds()[values] == UNSPACED)


def fasttext_lines(codes: Codes) -> list[str]:
    """Write texts as fastText reads them: words, signs and Han characters with spaces between, on one line.

    Args:
        codes: The texts.

    Returns:
        A line for each text.
    """
    values = codes.values.copy()
    is_alone = _is_alone()[values]
    values[codes.ends - 1] = _NEWLINE
    # Each character that stands alone gets a space before and after it.
    repeats = np.where(is_alone, 3, 1)
    spread = np.repeat(values, repeats)
    middles = (np.cumsum(repeats) - 2)[is_alone]
    spread[middles - 1] = _SPACE
    spread[middles + 1] = _SPACE
    return spread.tobytes().decode("utf-32-le", "replace").split("\n")[:-1]


def _windows(text: str) -> str:
    middle = (len(text) - WINDOW_CHARS) // 2
    return f"{text[:WINDOW_CHARS]} {text[middle : middle + WINDOW_CHARS]} {text[-WINDOW_CHARS:]}"


@functools.cache
def _folds() -> npt.NDArray[np.uint32]:
    """Build the table of folded characters: compatibility forms (full width), lower case, spaces."""
    kind = kinds()
    table = np.arange(len(kind), dtype=np.uint32)
    for code in range(_FOLDED):
        folded = unicodedata.normalize("NFKC", chr(code)).lower()
        if len(folded) == 1:
            table[code] = ord(folded)
    table[(kind & SPACE) > 0] = _SPACE
    table[:32] = table[127:160] = _SPACE  # control characters
    table[0xD800:0xE000] = ord("\ufffd")  # halves of pairs have no place in a text
    return table


@functools.cache
def _is_alone() -> npt.NDArray[np.bool_]:
    """Build the table of characters that are a word of their own: Han and the like, signs, the underscore.

    The underscore, because a text with `__label__` in it would otherwise label itself.
    """
    kind = kinds()
    table = ((kind & (WORD | SPACE)) == 0) | (kind == UNSPACED)
    table[_SPACE] = False
    table[ord("_")] = True
    return np.asarray(table)
