"""Letters of a batch of texts, counted by script and by groups that only some languages have.

UTF-8 bytes ─▶ code points ─▶ class of each (one table look-up) ─▶ counts [texts, classes]

The table is made once for each process: scripts from RE2's Unicode data, the kinds of Han characters from the national
character sets that Python brings (GB 2312 holds what mainland China prints, Big5 what Taiwan prints, JIS X 0208 what
Japan prints). A character that is in GB 2312 and not in Big5 was simplified; one of Big5's common characters that
GB 2312 lacks is traditional; one that only JIS X 0208 has is Japanese.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# ISO 15924 code -> the script's name in RE2; kana and Hangul stand for the whole of Japanese and Korean writing.
SCRIPTS: Final = {
    "Latn": "Latin",
    "Cyrl": "Cyrillic",
    "Arab": "Arabic",
    "Deva": "Devanagari",
    "Beng": "Bengali",
    "Grek": "Greek",
    "Hebr": "Hebrew",
    "Hani": "Han",
    "Jpan": "Hiragana",
    "Kore": "Hangul",
    "Thai": "Thai",
    "Geor": "Georgian",
    "Armn": "Armenian",
    "Taml": "Tamil",
    "Telu": "Telugu",
    "Knda": "Kannada",
    "Mlym": "Malayalam",
    "Gujr": "Gujarati",
    "Guru": "Gurmukhi",
    "Orya": "Oriya",
    "Sinh": "Sinhala",
    "Khmr": "Khmer",
    "Laoo": "Lao",
    "Mymr": "Myanmar",
    "Ethi": "Ethiopic",
    "Tibt": "Tibetan",
}
NAMES: Final = tuple(SCRIPTS)
HAN_KINDS: Final = ("simplified", "traditional", "japanese", "cantonese")
# Written Cantonese has characters of its own for its commonest words (HKSCS, 1999).
_CANTONESE = "嘅咗喺冇嗰啲嚟哋唔乜噉咁"
# Letters of one script that only these languages use, in their standard alphabets.
GROUPS: Final = (
    ("Cyrl", "їЇєЄґҐ", "uk"),
    ("Cyrl", "іІ", "uk be kk"),
    ("Cyrl", "ўЎ", "be uz"),
    ("Cyrl", "ыЫ", "ru be kk ky mn tt ba"),
    ("Cyrl", "эЭёЁ", "ru be kk ky mn tt ba tg uz"),
    ("Cyrl", "ъЪ", "ru bg kk ky mn tt ba tg uz"),
    ("Cyrl", "щЩ", "ru uk bg kk ky mn tt ba"),
    ("Cyrl", "йЙьЬюЮяЯ", "ru uk be bg kk ky mn tt ba tg uz"),
    ("Cyrl", "ђЂћЋ", "sr"),
    ("Cyrl", "ѓЃќЌѕЅ", "mk"),
    ("Cyrl", "јЈљЉњЊџЏ", "sr mk"),
    ("Cyrl", "ұҰ", "kk"),
    ("Cyrl", "ңҢ", "kk ky tt"),
    ("Cyrl", "өӨүҮ", "kk ky mn tt ba"),
    ("Cyrl", "әӘһҺ", "kk tt ba"),
    ("Cyrl", "қҚғҒ", "kk tg uz ba"),
    ("Cyrl", "җҖ", "tt"),
    ("Cyrl", "ҳҲ", "tg uz"),
    ("Cyrl", "ҷҶӣӢӯӮ", "tg"),
    ("Cyrl", "ҙҘҫҪҡҠ", "ba"),
    ("Arab", "پچژگ", "fa ur ps ug sdh ku"),
    ("Arab", "ٹڈڑےں", "ur"),
    ("Arab", "ښځڅټډړڼۍ", "ps"),
    ("Arab", "ڕڵێ", "sdh ku"),
    ("Arab", "ۇۈڭ", "ug"),
    ("Arab", "ةأإ", "ar ary arz"),
    ("Deva", "ळ", "mr gom sa"),
    ("Latn", "ěřůĚŘŮ", "cs"),
    ("Latn", "ľĺŕĽĹŔ", "sk"),
)
_GROUP_BASE = len(NAMES) + 1 + len(HAN_KINDS)
NUM_CLASSES: Final = _GROUP_BASE + len(GROUPS)

Counts = npt.NDArray[np.int64]


def count_letters(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[Counts, Counts, Counts]:
    """Count the letters of byte ranges.

    Args:
        data: UTF-8 bytes.
        starts: Where each range begins, at the first byte of a character.
        ends: Where it ends; a character that is cut there counts for nothing.

    Returns:
        Letters of each script [ranges, scripts] as in `NAMES`, Han characters of each kind [ranges, 4] as in
        `HAN_KINDS`, and letters of each group [ranges, groups] as in `GROUPS`.
    """
    length = ends - starts
    rows = np.repeat(np.arange(len(starts)), length)
    flat = data[np.arange(len(rows)) - np.repeat(np.cumsum(length) - length - starts, length)]
    classes = _table()[_code_points(flat)]
    counts = np.bincount(rows * NUM_CLASSES + classes, minlength=len(starts) * NUM_CLASSES)
    counts = counts.reshape(-1, NUM_CLASSES)
    scripts = counts[:, 1 : len(NAMES) + 1].copy()
    kinds, groups = counts[:, len(NAMES) + 1 : _GROUP_BASE], counts[:, _GROUP_BASE:]
    scripts[:, NAMES.index("Hani")] += kinds.sum(1)
    for column, (script, _, _) in enumerate(GROUPS):
        scripts[:, NAMES.index(script)] += groups[:, column]
    return scripts, kinds, groups


def _code_points(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Decode UTF-8 in place: a character at its first byte, 0 at the others."""
    padded = np.concatenate([data, np.zeros(3, np.uint8)])
    points = np.where(data < 0x80, data, 0).astype(np.int64)
    for low, high, size in ((0xC0, 0xE0, 2), (0xE0, 0xF0, 3), (0xF0, 0xF8, 4)):
        at = np.flatnonzero((data >= low) & (data < high))
        value = (padded[at] & (0x7F >> size)).astype(np.int64)
        for offset in range(1, size):
            value = (value << 6) | (padded[at + offset] & 0x3F)
        points[at] = np.minimum(value, 0x10FFFF)
    return points


@functools.cache
def _table() -> npt.NDArray[np.uint8]:
    """Give the class of every code point: 0 none, then scripts, kinds of Han, groups of letters."""
    table = np.zeros(0x110000, np.uint8)
    left = np.concatenate([np.arange(0xD800), np.arange(0xF900, 0x10000)])  # no surrogates, nothing for private use
    characters = pa.array(map(chr, left.tolist()))
    for name in sorted(NAMES, key=("Hani", "Kore").__contains__, reverse=True):  # the largest first: fewer are left
        pattern = r"[\p{Hiragana}\p{Katakana}]" if name == "Jpan" else rf"\p{{{SCRIPTS[name]}}}"
        matches = pc.match_substring_regex(characters, pattern=pattern)
        is_letter = matches.to_numpy(zero_copy_only=False)
        table[left[is_letter]] = NAMES.index(name) + 1
        left, characters = left[~is_letter], characters.filter(pc.invert(matches))
    han = NAMES.index("Hani") + 1
    table[0x20000:0x32400] = han  # the supplementary planes of ideographs
    points = np.flatnonzero(table[:0x10000] == han)
    for number, is_kind in enumerate(_han_kinds("".join(map(chr, points.tolist()))), len(NAMES) + 1):
        table[points[is_kind]] = number
    for number, (_, letters, _) in enumerate(GROUPS, _GROUP_BASE):
        table[[ord(letter) for letter in letters]] = number
    return table


def _han_kinds(characters: str) -> list[npt.NDArray[np.bool_]]:
    """Tell which Han characters are of each of `HAN_KINDS`; one that is of several kinds is of the last."""
    mainland, taiwan, japan = (_codes(characters, codec) for codec in ("gb2312", "big5", "shift_jis"))
    # Big5's first level are the 5,401 common characters. JIS X 0208's ends at 0x989F - 1 in Shift JIS.
    return [
        (mainland > 0) & (taiwan == 0),
        (mainland == 0) & (taiwan >= 0xA440) & (taiwan <= 0xC67E),
        (mainland == 0) & (taiwan == 0) & (japan >= 0x889F) & (japan < 0x989F),
        np.isin(list(characters), list(_CANTONESE)),
    ]


def _codes(characters: str, codec: str) -> npt.NDArray[np.uint16]:
    """Encode in a set of two bytes a character; 0 for those that it lacks. None of the sets has `?` in a pair."""
    encoded = characters.encode(codec, "replace").replace(b"?", b"\0\0")
    return np.frombuffer(encoded, ">u2").astype(np.uint16)
