"""Cleaning of text; what a character is stays, what is noise goes.

Each step looks at all texts and rewrites only those that need it:

mojibake ─▶ line ends ─▶ controls ─▶ NFC ─▶ width, punctuation (as asked for) ─▶ noise lines (as asked for) ─▶ space
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# C0 and C1 controls but tab and line end; zero-width and direction marks. The joiners U+200C and U+200D stay, for
# Persian, the scripts of India and emoji need them; so does the mark of a replaced byte, as evidence for the filters.
_CONTROLS = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}\x{2066}-\x{2069}\x{feff}]"
)
_LINE_ENDS = r"\r\n?|\x{2028}|\x{2029}|\x{85}"
# UTF-8 that was read as Latin-1 or Windows-1252: a lead byte's character, then one of the continuation bytes; the
# signs listed by name are what Windows-1252 has for 80 to 9F.
_TAIL = r"[\x{80}-\x{bf}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_SUSPICIOUS = rf"[ÂÃÐÑ]{_TAIL}|[à-ï]{_TAIL}{{2}}|ð{_TAIL}{{3}}"
_RARE = f"{_CONTROLS}|{_LINE_ENDS}|{_SUSPICIOUS}"
# What is left of C1 is Windows-1252 that was read as Latin-1; but U+0085 is a line end.
_C1 = r"[\x{80}-\x{84}\x{86}-\x{9f}]"
_FROM_C1 = {
    code: sign for code in range(0x80, 0xA0) if (sign := bytes([code]).decode("cp1252", "ignore")) and code != 0x85
}
_SOFT = r"[\x{ad}\x{034f}\x{115f}\x{1160}\x{180e}\x{2061}-\x{2064}\x{3164}\x{ffa0}]"
_NOISE_LINES = r"(?m)^[^\p{L}\p{N}\n]+\n|\n[^\p{L}\p{N}\n]+$"
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF10, 0xFF5B) if chr(code - 0xFEE0).isalnum()}
# To ASCII: as in the mapping that CCNet uses (Wenzek et al., 2020), Chinese and typographic marks alike.
_TO_ASCII = str.maketrans(
    dict(
        zip(
            "，。、；：？！（）［］｛｝＂＇／＼＠＃％＆＊＋－＝＜＞｜～",
            ".".join([",", ",;:?!()[]{}\"'/\\@#%&*+-=<>|~"]),
            strict=True,
        )
    )
    | dict(zip("“”„‟«»‘’‚‛′‐‑‒–—―−", '""""""\'\'\'\'\'-------', strict=True))
    | {"…": "...", "《": '"', "》": '"', "「": '"', "」": '"', "『": '"', "』": '"', "【": "[", "】": "]"}
)
_HAN = r"[\p{Han}》」』”）]"
_TO_CHINESE = {",": "，", ".": "。", "?": "？", "!": "！", ":": "：", ";": "；"}


def normalise(
    text: pa.Array,
    *,
    width: str = "keep",
    punctuation: str = "keep",
    fix_mojibake: bool = False,
    drop_noise_lines: bool = False,
    repairs: Counter[str] | None = None,
) -> pa.Array:
    r"""Normalise texts: line ends, NFC, no control characters, at most one empty line in a row, no outer space.

    Args:
        text: Strings.
        width: `keep`, or `half` for ASCII instead of full-width letters and digits.
        punctuation: `keep`; `ascii` for ASCII marks in place of Chinese and typographic ones; `chinese` for full-width
            `,.?!:;` after a Chinese character.
        fix_mojibake: Whether to mend UTF-8 that was decoded as something else, by ftfy (Speer, 2019).
        drop_noise_lines: Whether lines without a letter or number go, and soft hyphens and invisible fillers.
        repairs: Gets `mojibake`, `noise_lines` and `not_nfc`: texts that these steps changed.

    Returns:
        Strings, as many.
    """
    counts = Counter[str]() if repairs is None else repairs
    rare = _matching(text, _RARE)  # one look for three steps that few texts need
    if pc.any(rare).as_py():
        found = text.filter(rare)
        if fix_mojibake:
            found = _rewritten(found, _matching(found, rf"{_SUSPICIOUS}|{_C1}"), _unscrambled, counts, "mojibake")
        text = pc.replace_with_mask(text, rare, _replaced(_replaced(found, _LINE_ENDS, "\n"), _CONTROLS, ""))
    text = _composed(text, counts)
    if width == "half":
        text = _rewritten(text, _matching(text, "[０-９Ａ-Ｚａ-ｚ]"), lambda value: value.translate(_FULL_WIDTH))
    if punctuation != "keep":
        text = _punctuated(text, punctuation)
    if drop_noise_lines:
        before = text
        text = _replaced(_replaced(text, _SOFT, ""), _NOISE_LINES, "")
        counts["noise_lines"] += int(pc.sum(pc.not_equal(before, text)).as_py() or 0)
    spaced = _matching(text, r"[ \t]\n|\n\n\n")
    if pc.any(spaced).as_py():
        found = _replaced(_replaced(text.filter(spaced), r"[ \t]+\n", "\n"), r"\n{3,}", "\n\n")
        text = pc.replace_with_mask(text, spaced, found)
    counts += Counter()
    return pc.utf8_trim(text, characters="\n \t\u3000")


def _matching(text: pa.Array, pattern: str) -> pa.Array:
    return pc.match_substring_regex(text, pattern=pattern)


def _replaced(text: pa.Array, pattern: str, replacement: str) -> pa.Array:
    """Replace where there is something to replace: to look costs a third of what to rewrite does."""
    found = _matching(text, pattern)
    if not pc.any(found).as_py():
        return text
    changed = pc.replace_substring_regex(text.filter(found), pattern=pattern, replacement=replacement)
    return pc.replace_with_mask(text, found, changed)


def _rewritten(
    text: pa.Array,
    found: pa.Array,
    rewrite: Callable[[str], str],
    counts: Counter[str] | None = None,
    reason: str = "",
) -> pa.Array:
    """Rewrite some texts in Python."""
    if not pc.any(found).as_py():
        return text
    before = text.filter(found).to_pylist()
    after = [rewrite(value) for value in before]
    if counts is not None:
        counts[reason] += sum(old != new for old, new in zip(before, after, strict=True))
    return pc.replace_with_mask(text, found, pa.array(after, text.type))


def _composed(text: pa.Array, counts: Counter[str]) -> pa.Array:
    """Bring texts into NFC; unicodedata does, for pyarrow 25.0.1's utf8_normalize hands every text back as it came."""
    suspects = np.flatnonzero(~np.asarray(pc.string_is_ascii(text).to_numpy(zero_copy_only=False), dtype=bool))
    values = text.take(pa.array(suspects)).to_pylist()
    wrong = np.zeros(len(text), dtype=bool)
    wrong[[row for row, value in zip(suspects, values, strict=True) if not unicodedata.is_normalized("NFC", value)]] = (
        True
    )
    return _rewritten(text, pa.array(wrong), functools.partial(unicodedata.normalize, "NFC"), counts, "not_nfc")


def _punctuated(text: pa.Array, punctuation: str) -> pa.Array:
    if punctuation == "ascii":
        pattern = "[" + "".join(chr(code) for code in _TO_ASCII) + "]"
        return _rewritten(text, _matching(text, pattern), lambda value: value.translate(_TO_ASCII))
    for mark, full in _TO_CHINESE.items():
        # A full stop between a character and a letter or digit is part of a name such as 图1.2 or 中.com
        after = r"([^\w.]|\p{Han}|$)" if mark == "." else "()"
        text = _replaced(text, rf"({_HAN})[{mark}]{after}", rf"\1{full}\2")
    return text


def _unscrambled(text: str) -> str:
    """Mend the lines of a text that look scrambled; ftfy looks at each as a whole."""
    config = _ftfy_config()
    import ftfy

    lines = (ftfy.fix_text(line, config) if not line.isascii() else line for line in text.split("\n"))
    return "\n".join(lines).translate(_FROM_C1)


@functools.cache
def _ftfy_config() -> Any:
    """Switch off all that ftfy does beside the encoding: the other steps here have their own rules."""
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
