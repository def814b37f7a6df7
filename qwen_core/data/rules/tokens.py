"""Words and signs of a batch, cut as the tools cut them on whose words the published thresholds were counted.

    stretches between spaces ─▶ signs before and behind ─▶ cuts within (hyphens, commas, it's, don't) ─▶ spans

This is spaCy's English scheme (datatrove's) as a handful of vectorised cuts: signs at either end of a stretch stand
alone, an ellipsis is one token, hyphens between letters cut, "Mr." and "U.S." keep their stops, addresses stay whole.
Its word lists (I'm, gonna, emoticons ...) are left out. In scripts without spaces each character is a token.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import DIGIT, LETTER, SPACE, UNSPACED, UPPER
from qwen_core.data.index import Index, Ints, Spans
from qwen_core.data.rules.signs import (
    ALPHA,
    BEFORE_STOP,
    BETWEEN,
    CLOSES,
    HYPHEN,
    ICON,
    IN_NUMBER,
    INFIX,
    OPENS,
    QUOTE,
    UInt16s,
)

Bools = npt.NDArray[np.bool_]

_ABBREVIATIONS = (
    "mt ak ala apr ariz ark aug calif colo conn dec del feb fla ga ia id ill ind jan jul jun kan kans ky la mar mass "
    "mich minn miss n.c n.d n.h n.j n.m n.y neb nebr nev nov oct okla ore pa s.c sep sept tenn va wash wis a.m adm "
    "bros co corp d.c dr e.g gen gov i.e inc jr ltd md messrs mo mont mr mrs ms p.m ph.d prof rep rev sen st vs v.s"
)
_FIRST_WIDE = 0x3000
_SCHEME = 8  # characters before ://, a bracket included
_TAILS = ("s", "d", "m", "ll", "re", "ve")  # behind an apostrophe


def tokens(index: Index, bits: UInt16s) -> Spans:
    """Cut a batch into words and signs.

    Args:
        index: The batch.
        bits: What its characters are, of `signs`, [C].

    Returns:
        The tokens.
    """
    visible = np.zeros(len(index.codes) + 2, bool)  # a place before and one behind
    np.equal(index.kinds & SPACE, 0, out=visible[1:-1])
    cuts = visible[1:] != visible[:-1]  # a token begins or ends before character i
    stretches = index.stretches
    dots = _ellipses(index.codes)
    closes = (bits & CLOSES) != 0
    closes |= dots | _lone_stops(index, bits, stretches)
    closes[1:] |= (index.codes[1:] == ord("%")) & ((index.kinds[:-1] & DIGIT) != 0)
    tail = find_runs(closes)
    tail = tail[~visible[tail[:, 1] + 1]]
    head = find_runs(((bits & OPENS) != 0) | dots)
    head = head[~visible[head[:, 0]]]
    _cut_within(index, bits, stretches, closes, cuts)
    for runs in (head, tail):
        inside = ranges(runs)
        cuts[inside] = True
        cuts[runs[:, 1]] = True
    _join_ellipses(dots, cuts)
    unspaced = (index.kinds & UNSPACED) != 0
    if unspaced.any():
        unspaced |= ((bits & OPENS) != 0) & (index.codes >= _FIRST_WIDE)  # their signs stand alone too
        cuts[:-1] |= unspaced
        cuts[1:] |= unspaced
    return index.spans(np.flatnonzero(cuts & visible[1:]), np.flatnonzero(cuts & visible[:-1]))


def _ellipses(codes: npt.NDArray[np.uint32]) -> Bools:
    """Mark stops that stand beside another."""
    stop = codes == ord(".")
    pair = stop[1:] & stop[:-1]
    stop[1:] = pair
    stop[:-1] |= pair
    stop[0] = len(pair) > 0 and pair[0]
    return np.asarray(stop)


def _lone_stops(index: Index, bits: UInt16s, stretches: Ints) -> Bools:
    """Mark the full stops that close a stretch as a sign of their own."""
    stops = np.flatnonzero(index.codes == ord("."))
    stops = stops[stops > 1]
    kind, before = index.kinds[stops - 1], index.kinds[stops - 2]
    upper, upper_before = (kind & UPPER) != 0, (before & UPPER) != 0
    alone = ((kind & LETTER) != 0) & ~upper | ((kind & (DIGIT | UNSPACED)) != 0)
    alone |= ((bits[stops - 1] & BEFORE_STOP) != 0) | (upper & upper_before)
    begin = stretches[np.searchsorted(stretches[:, 0], stops, side="right") - 1, 0] if len(stretches) else stops
    begin = np.where((bits[begin] & OPENS) != 0, begin + 1, begin)
    size = stops - begin
    short = np.flatnonzero(alone & (size > 0) & (size <= 6))
    hashes, table = index.hashes(begin[short], stops[short]), _abbreviations()
    known = table[np.minimum(np.searchsorted(table, hashes), len(table) - 1)] == hashes
    known |= (size[short] == 1) & ((kind[short] & LETTER) != 0)
    alone[short[known]] = False
    mask = np.zeros(len(index.codes), bool)
    mask[stops[alone]] = True
    return mask


def _cut_within(index: Index, bits: UInt16s, stretches: Ints, closes: Bools, cuts: Bools) -> None:
    """Cut inside of words: at hyphens, commas and the like between letters, and before 's, 'll, n't."""
    at = np.flatnonzero(bits & INFIX)
    at = at[(at > 0) & (at < len(bits) - 1)]
    at = at[~_in_address(index.codes, stretches, at)]
    code, previous, following = index.codes[at], index.kinds[at - 1], index.kinds[np.minimum(at + 1, len(bits) - 1)]
    letter_before = (bits[at - 1] & ALPHA) != 0
    digit_before = (previous & DIGIT) != 0
    letter_after = (bits[at + 1] & ALPHA) != 0
    both = (letter_before | digit_before) & letter_after
    cut = both & ((bits[at] & BETWEEN) != 0)
    cut |= letter_before & letter_after & (code == ord(","))
    quote_before, quote_after = ((bits[place] & QUOTE) != 0 for place in (at - 1, at + 1))
    small_before = ((previous & LETTER) != 0) & ((previous & UPPER) == 0)
    cut |= (code == ord(".")) & (small_before | quote_before) & (((following & UPPER) != 0) | quote_after)
    number = digit_before & (((following & DIGIT) != 0) | (index.codes[at + 1] == ord("-")))
    cut |= number & ((bits[at] & IN_NUMBER) != 0)
    cut |= (bits[at] & ICON) != 0
    cuts[at[cut]] = True
    cuts[at[cut] + 1] = True
    _cut_dashes(bits, at, cuts)
    _cut_contractions(index, at[(code == ord("'")) | (code == ord("’"))], closes, cuts)


def _cut_dashes(bits: UInt16s, at: Ints, cuts: Bools) -> None:
    """Cut out two or three hyphens between letters."""
    hyphen = (bits[at] & HYPHEN) != 0
    at = at[hyphen]
    first = at[(bits[at - 1] & HYPHEN) == 0]
    for length in (2, 3):
        fits = first[first + length < len(bits)]
        inside = np.ones(len(fits), bool)
        for step in range(1, length):
            inside &= (bits[fits + step] & HYPHEN) != 0
        fits = fits[inside & ((bits[fits - 1] & ALPHA) != 0) & ((bits[fits + length] & ALPHA) != 0)]
        cuts[fits] = True
        cuts[fits + length] = True


def _cut_contractions(index: Index, apostrophes: Ints, closes: Bools, cuts: Bools) -> None:
    """Cut it's and we'll before the apostrophe, and don't before its n."""
    codes, size = index.codes, len(index.codes)
    word_before = (index.kinds[apostrophes - 1] & (LETTER | DIGIT)) != 0
    apostrophes = apostrophes[word_before]

    def ends_with(tail: str) -> Bools:
        end = apostrophes + 1 + len(tail)
        fits = end < size
        for step, letter in enumerate(tail):
            place = np.minimum(apostrophes + 1 + step, size - 1)
            fits &= (codes[place] | 32) == ord(letter)
        end = np.minimum(end, size - 1)
        return np.asarray(fits & (((index.kinds[end] & SPACE) != 0) | closes[end]))

    for tail in _TAILS:
        cuts[apostrophes[ends_with(tail)]] = True
    negation = apostrophes[ends_with("t")]
    negation = negation[negation > 1]
    negation = negation[(codes[negation - 1] | 32 == ord("n")) & ((index.kinds[negation - 2] & LETTER) != 0)]
    cuts[negation - 1] = True


def _in_address(codes: npt.NDArray[np.uint32], stretches: Ints, at: Ints) -> Bools:
    """Tell which places lie in a stretch that begins with a scheme and ://, which stays whole."""
    colons = np.flatnonzero((codes[:-2] == ord(":")) & (codes[1:-1] == ord("/")) & (codes[2:] == ord("/")))
    if not len(colons):
        return np.zeros(len(at), bool)
    addresses = np.zeros(len(stretches), bool)
    owner = np.searchsorted(stretches[:, 0], colons, side="right") - 1
    addresses[owner[colons - stretches[owner, 0] <= _SCHEME]] = True
    owner = np.searchsorted(stretches[:, 0], at, side="right") - 1
    return np.asarray(addresses[owner] & (at < stretches[owner, 1]))


def _join_ellipses(dots: Bools, cuts: Bools) -> None:
    runs = find_runs(dots)
    inside = ranges(runs)
    cuts[inside] = False
    cuts[runs[:, 0]] = True
    cuts[runs[:, 1]] = True


def find_runs(mask: Bools) -> Ints:
    """Find where marked characters stand side by side, [R, 2]."""
    edges = np.zeros(len(mask) + 1, bool)
    edges[1:-1] = mask[1:] != mask[:-1]
    edges[0], edges[-1] = mask[:1].any(), mask[-1:].any()
    return np.flatnonzero(edges).reshape(-1, 2)


def ranges(runs: Ints) -> Ints:
    """List all places of some runs.

    Args:
        runs: Beginning and end of each, [R, 2].

    Returns:
        Rising where the runs are.
    """
    lengths = runs[:, 1] - runs[:, 0]
    skipped = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(lengths.sum()) + np.repeat(runs[:, 0] - skipped, lengths))


@functools.cache
def _abbreviations() -> npt.NDArray[np.uint64]:
    index = Index(_ABBREVIATIONS.split())
    return np.sort(index.hashes(index.offsets[:-1], index.offsets[1:] - 1))
