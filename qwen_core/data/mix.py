"""The mix: how often each document is taken, by its language and its source."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def draws(ids: Sequence[str], seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    """Draw a number below 2^64 for each document, from its id, the seed and the purpose alone.

    Args:
        ids: Of the documents.
        seed: The recipe's.
        purpose: Draws for different purposes are independent.

    Returns:
        The numbers, [N].
    """
    key = seed.to_bytes(8, "little") + purpose.encode()
    digests = [hashlib.blake2b(document.encode(), digest_size=8, key=key).digest() for document in ids]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def repeats(
    ids: Sequence[str],
    languages: Sequence[str | None],
    sources: Sequence[str | None],
    weights: Mapping[str, Mapping[str, float]],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Decide how often each document is taken.

    A weight of 2.5 takes each document twice and, by its draw, half of them a third time.

    Args:
        ids: Of the documents.
        languages: Of the documents.
        sources: Of the documents.
        weights: `languages` and `sources`, each a weight by name; 1 where a name is not given. They multiply.
        seed: The recipe's.

    Returns:
        Counts from 0, [N].
    """
    by_language, by_source = weights["languages"], weights["sources"]
    weight = np.array(
        [
            by_language.get(language or "unknown", 1.0) * by_source.get(source or "unknown", 1.0)
            for language, source in zip(languages, sources, strict=True)
        ]
    )
    return np.floor(weight + draws(ids, seed, "mix") / 2.0**64).astype(np.int64)
