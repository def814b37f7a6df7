"""Words, once for all who need them: Latin and other letters by word, CJK by character."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+")


@dataclass(frozen=True)
class Words:
    """The words of a batch of texts, flat.

    Attributes:
        codes: For each word its number in `vocabulary`, all texts end to end.
        vocabulary: Distinct lower-case words.
        offsets: Where each text's words begin in `codes`, and the end; one more than there are texts.
    """

    codes: npt.NDArray[np.int64]
    vocabulary: list[str]
    offsets: npt.NDArray[np.int64]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Words of each text."""
        return np.diff(self.offsets)


def split_words(texts: list[str]) -> Words:
    """Split texts into lower-case words.

    Args:
        texts: Any texts.

    Returns:
        Their words.
    """
    split = [_WORD.findall(text.lower()) for text in texts]
    offsets = np.concatenate(([0], np.cumsum([len(words) for words in split], dtype=np.int64)))
    flat = pa.array([word for words in split for word in words], pa.string()).dictionary_encode()
    return Words(flat.indices.to_numpy().astype(np.int64), flat.dictionary.to_pylist(), offsets)
