"""Which language a text of one script is in: n-gram scores, how common languages are, letters of alphabets.

Where a script has one language among the model's, nothing is left to decide. Elsewhere three kinds of evidence add up:
the n-grams' log posterior divided by the square root of the length in bytes (py3langid's own temperature: neighbouring
n-grams repeat each other's evidence), the logarithm of each language's size in CC-100, a crawl of the web (Conneau et
al., 2020, table 6), times a weight, and a penalty for letters that a language's alphabet does not have.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from qwen_core.data.language.iso639 import short_code
from qwen_core.data.language.letters import GROUPS, NAMES
from qwen_core.data.language.ngrams import load_model

SOLE: Final = {
    "Jpan": "ja",
    "Kore": "ko",
    "Hani": "zh",
    "Thai": "th",
    "Geor": "ka",
    "Armn": "hy",
    "Taml": "ta",
    "Telu": "te",
    "Knda": "kn",
    "Mlym": "ml",
    "Gujr": "gu",
    "Guru": "pa",
    "Orya": "or",
    "Sinh": "si",
    "Khmr": "km",
    "Laoo": "lo",
    "Mymr": "my",
    "Ethi": "am",
    "Tibt": "bo",
    "Grek": "el",
    "Hebr": "he",
}
_SHARED: Final = {
    "Cyrl": "be bg kk ky mk mn ru sr tg tt uk ba uz",
    "Arab": "ar fa ps ur ug sdh ku ary arz",
    "Deva": "hi mr ne sa gom",
    "Beng": "bn as",
}
# GiB of each language in CC-100. Latin's figure is left out: most of that portion is not Latin (Kreutzer et al., 2022).
_CC100: Final = """
en 300.8 vi 137.3 ru 278 id 148.3 fa 111.6 sv 85 ro 61.4 de 66.6 fr 56.8 es 53.3 no 49 pt 49.1 da 45.6 hu 58.4 uk 84.6
fi 54.3 pl 44.6 bg 57.5 nl 29.3 it 30.2 sk 23.2 hr 20.5 ar 28 tr 20.9 cs 16.3 lt 13.7 ca 10.1 hi 20.2 sl 10.3 ms 8.5
lv 8.8 sq 5.4 et 6.1 sr 9.1 az 6.5 ur 5.7 tl 3.1 bn 8.4 is 3.2 gl 2.9 kk 6.4 mk 4.8 be 4.3 sw 1.6 eu 2 mn 3 af 1.3
ne 3.8 mr 2.8 eo 0.9 cy 0.8 ps 0.7 ky 1.2 uz 0.7 ga 0.5 ku 0.4 so 0.4 ha 0.3 fy 0.2 ug 0.4 mg 0.2 jv 0.2 gd 0.1
sa 0.3 br 0.1 bs 0.1 xh 0.1 om 0.1 as 0.1
"""
_RARE_GIB = 0.01  # a language that CC-100 does not have: its smallest portions are ten times that
_FOREIGN_LETTERS = 2.0  # what letters outside a language's alphabet cost, in nats after tempering
_FOREIGN_RATIO = 0.003  # of a text's letters: less is a name or a quotation
_SHARPNESS = 1.4  # beyond py3langid's temperature: then a score is about the share of right labels

Floats = npt.NDArray[np.float32]


def decide(
    scores: Floats, scripts: npt.NDArray[np.int64], foreign: npt.NDArray[np.bool_], prior: float
) -> tuple[npt.NDArray[np.str_], Floats]:
    """Choose the language of each text.

    Args:
        scores: Tempered log posteriors of the model's classes [texts, classes].
        scripts: Script of each text, as its place in `NAMES`.
        foreign: Letters of which groups a text has [texts, groups].
        prior: How much the size of a language on the web counts: 0 not at all, 1 fully.

    Returns:
        Language and probability of each text.
    """
    languages, columns = _languages()
    sums = _SHARPNESS * scores + (prior * _log_sizes())[None, :] - _FOREIGN_LETTERS * (foreign @ _misses())
    sums = np.where(_allowed()[scripts], sums, -np.inf)
    sums -= sums.max(1, keepdims=True)
    chances = np.exp(sums)
    chances /= chances.sum(1, keepdims=True)
    merged = np.zeros((len(chances), len(languages)), np.float32)
    np.add.at(merged.T, columns, chances.T)
    best = merged.argmax(1)
    return languages[best], merged[np.arange(len(best)), best]


def has_foreign(groups: npt.NDArray[np.int64], letters: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell which groups of letters a text has more than by chance.

    Args:
        groups: Letters of each group [texts, groups].
        letters: Letters of each text.

    Returns:
        Whether they count [texts, groups].
    """
    return np.asarray(groups > (_FOREIGN_RATIO * letters)[:, None])


@functools.cache
def _languages() -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    codes = [short_code(name) for name in load_model().classes.tolist()]
    languages, columns = np.unique(np.array(codes, "U8"), return_inverse=True)
    return languages, columns


@functools.cache
def _log_sizes() -> Floats:
    words = _CC100.split()
    sizes = dict(zip(words[::2], map(float, words[1::2]), strict=True))
    return np.log([sizes.get(name, _RARE_GIB) for name in load_model().classes.tolist()]).astype(np.float32)


@functools.cache
def _misses() -> Floats:
    """Which classes do not have which group of letters [groups, classes]; only within the group's script."""
    classes = load_model().classes
    return np.stack([~np.isin(classes, users.split()) for _, _, users in GROUPS]).astype(np.float32)


@functools.cache
def _allowed() -> npt.NDArray[np.bool_]:
    """Which classes a script may be of [scripts, classes]."""
    classes = load_model().classes
    others = set(SOLE.values()) | set(" ".join(_SHARED.values()).split()) | {"grc", "hbo", "dz", "wuu", "yue", "zxx"}
    latin = ~np.isin(classes, sorted(others - {"sr", "uz", "ku"}))
    return np.stack([np.isin(classes, _SHARED[name].split()) if name in _SHARED else latin for name in NAMES])
