"""What each character is to the quality rules: one table of bits, looked up for a whole batch.

The lists of signs follow spaCy's English tokenizer and datatrove 0.10's filters as facts to agree with: published
figures of Gopher, C4 and FineWeb were counted on words as these tools cut them.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import LETTER, UNSPACED, kinds

UInt16s = npt.NDArray[np.uint16]

OPENS, CLOSES, INFIX, BETWEEN, IN_NUMBER, HYPHEN, ICON, QUOTE = (np.uint16(1 << bit) for bit in range(8))
ALPHA, NO_SYMBOL, NO_PUNCTUATION, ENDS_SENTENCE, ENDS_LINE, BEFORE_STOP, BULLET = (
    np.uint16(1 << bit) for bit in range(8, 15)
)
"""Bits. `OPENS`, `CLOSES`: a word of its own before or behind a word; `INFIX`: may cut a word in two; `NO_SYMBOL`,
`NO_PUNCTUATION`: makes a token more than signs, as datatrove and as Unicode has it; `ENDS_LINE`: closes a sentence at a
line's end; `BEFORE_STOP`: a full stop behind it stands alone; `BETWEEN`, `IN_NUMBER`: cut between letters or digits."""

_PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_SENTENCE_ENDS = "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡。"
_LINE_ENDS = _SENTENCE_ENDS + "؞؝៖៕៚៙៘᠃⸔⸓"
_SYMBOLS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»" + _LINE_ENDS


@functools.cache
def signs() -> UInt16s:
    """Build the table; once for each process, some 0.3 s.

    Returns:
        [0x110000], bits as above.
    """
    kind = kinds()
    table = np.full(len(kind), NO_SYMBOL | NO_PUNCTUATION, np.uint16)
    table[(kind & (LETTER | UNSPACED)) != 0] |= ALPHA
    for code in range(0x3000, 0x3040):  # Han signs between the scripts
        _strip_punctuation(table, code)
    for first, last in ((0, 0x2000), (0x2000, 0x3000), (0xA000, 0xABFF), (0xFE00, 0x10000), (0x10000, 0x12000)):
        for code in range(first, last):
            _strip_punctuation(table, code)
    for code in (*map(ord, _SYMBOLS), *range(9), *range(11, 32), *range(127, 160)):
        table[code] &= ~NO_SYMBOL
    for bits, characters in (
        (OPENS | CLOSES | BEFORE_STOP, _PUNCTUATION + _QUOTES),
        (OPENS | CLOSES, "—–"),
        (OPENS, "§%=+" + _CURRENCY),
        (BEFORE_STOP, "%²-+"),
        (INFIX, ",:<>=/+-*^.–—~'’"),
        (QUOTE, _QUOTES + ","),
        (HYPHEN, "-–—~"),
        (BETWEEN, "-–—~:<>=/"),
        (IN_NUMBER, "+-*^"),
        (BULLET, "•-*●·‣▪"),
        (ENDS_SENTENCE, _SENTENCE_ENDS),
        (ENDS_LINE, _LINE_ENDS),
    ):
        for character in characters:
            table[ord(character)] |= bits
    return table


def _strip_punctuation(table: UInt16s, code: int) -> None:
    category = unicodedata.category(chr(code))
    if category.startswith("P"):
        table[code] &= ~NO_PUNCTUATION
    if category == "So":
        table[code] |= ICON | OPENS | CLOSES | INFIX
