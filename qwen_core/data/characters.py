"""What each Unicode character is: tables over all code points, looked up for whole batches at once.

    text ─▶ UTF-32 ─▶ KIND[code points] (letters, digits, spaces ...), VALUE[code points] (what a hash sums up)

Scripts that are written without spaces (Han, Kana, Thai, Lao, Khmer, Myanmar) are marked `UNSPACED`: there a character
is a word. Hangul is written with spaces and counts as letters.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt

UInt8s = npt.NDArray[np.uint8]
UInt64s = npt.NDArray[np.uint64]

LETTER, DIGIT, JOINER, UNSPACED, SPACE, NEWLINE, UPPER, SIGN = (np.uint8(1 << bit) for bit in range(8))
"""Bits of a kind. `JOINER` (marks and the underscore) continues a word; `SIGN` is every other visible character."""

WORD = LETTER | DIGIT | JOINER
"""What a word of a script with spaces is made of."""

_CODE_POINTS = 0x110000
_LAST_ASSIGNED = 0x323B0  # above lie only tags, variation selectors and private use
_UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # Han iteration mark, closing mark, zero
    (0x3021, 0x3029),
    (0x3040, 0x30FF),  # Kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),  # half-width Kana
    (0x1B000, 0x1B16F),
    (0x20000, 0x323AF),
)


@functools.cache
def kinds() -> UInt8s:
    """Build the table of kinds; once for each process, some 60 ms.

    Returns:
        [0x110000], bits as above.
    """
    table = np.full(_CODE_POINTS, SIGN, np.uint8)
    for code in range(_LAST_ASSIGNED):
        table[code] = _kind(chr(code))
    for first, last in _UNSPACED_RANGES:
        span = table[first : last + 1]
        span[(span & WORD) > 0] = UNSPACED
    table[0xE0100:0xE01F0] = JOINER  # variation selectors
    return table


@functools.cache
def values() -> UInt64s:
    """Build the table of what a hash sums up: a well-mixed number for each character, the same for both cases.

    Returns:
        [0x110000].
    """
    lower = np.arange(_CODE_POINTS, dtype=np.uint64)
    for code in range(0x1E944):  # the last letter that has a case lies before
        folded = chr(code).lower()
        if len(folded) == 1:
            lower[code] = ord(folded)
    return mix(lower)


def mix(numbers: UInt64s) -> UInt64s:
    """Spread numbers over 64 bits (splitmix64's finaliser; Steele et al., 2014).

    Args:
        numbers: Any.

    Returns:
        As many; different ones stay different.
    """
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _kind(character: str) -> np.uint8:
    if character.isalpha():
        return LETTER | UPPER if character.isupper() else LETTER
    if character.isnumeric():
        return DIGIT
    if character in "\n\r\u2028\u2029\x85":
        return SPACE | NEWLINE
    if character.isspace():
        return SPACE
    category = unicodedata.category(character)
    return JOINER if category.startswith("M") or category in ("Pc", "Cf") else SIGN
