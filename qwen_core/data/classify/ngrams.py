"""A linear classifier over hashed n-grams of characters: logistic regression on naive Bayes weights.

After "Baselines and Bigrams" (Wang and Manning, 2012), which weighs each feature by its log-count ratio between the
classes before a linear model is fitted. Departures: n-grams of characters rather than of words, hashed into a table;
counts rather than presence, since a sum over positions needs no search for repetitions; logistic loss, for odds.

    codes ─▶ rolling hashes, 1 to 5 characters (Han: 1 to 3) ─▶ a weight each ─▶ sum / √(number of n-grams) ─▶ log odds
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_core.data.classify.codes import Codes, is_unspaced
from qwen_core.data.classify.minimise import inner, minimise

_BITS = 20
_MAX_ORDER = 5
_MAX_UNSPACED_ORDER = 3
_MIN_EXAMPLES = 2  # n-grams of one example alone tell nothing of others
_STRENGTH = 10.0  # of the data against the penalty; chosen on a split of training data, flat from 5 to 20
_ITERATIONS = 60
_LONGEST_QUANTILE = 0.95  # of the examples' lengths

Floats = npt.NDArray[np.float64]
_Matrix = Any  # scipy has no types


@dataclass(frozen=True)
class NgramModel:
    """What was learnt.

    Attributes:
        weights: Of each bucket of n-grams.
        bias: Log odds of a text that has no n-gram of weight.
        longest: Number of n-grams beyond which a text is judged as one of this length.
    """

    weights: npt.NDArray[np.float32]
    bias: float
    longest: float

    def log_odds(self, codes: Codes) -> Floats:
        """Score texts.

        Args:
            codes: The texts.

        Returns:
            Log odds of the positive label, for each text.
        """
        if not len(codes.ends):
            return np.zeros(0)
        sums = np.zeros(len(codes.values), np.float32)
        for buckets, is_counted in _buckets(codes):
            found = self.weights[buckets]
            found *= is_counted
            sums[: len(found)] += found
        totals = np.add.reduceat(sums, _starts(codes), dtype=np.float64)
        return totals / _divisors(codes, self.longest) + self.bias

    def save(self, path: Path) -> None:
        """Write the model; the same model gives the same bytes.

        Args:
            path: Ends in `.npz`.
        """
        used = np.flatnonzero(self.weights).astype(np.uint32)
        numbers = np.array([self.bias, self.longest])
        np.savez(path, buckets=used, weights=self.weights[used], numbers=numbers)

    @staticmethod
    def load(path: Path) -> NgramModel:
        """Read a model.

        Args:
            path: As `save` wrote it.

        Returns:
            The model.
        """
        with np.load(path) as stored:
            weights = np.zeros(1 << _BITS, np.float32)
            weights[stored["buckets"]] = stored["weights"]
            return NgramModel(weights, *stored["numbers"].tolist())


def train_ngrams(codes: Codes, is_positive: npt.NDArray[np.bool_]) -> NgramModel:
    """Fit a model; the same texts in the same order give the same weights.

    Args:
        codes: The texts.
        is_positive: Their labels; both must occur.

    Returns:
        The model.
    """
    counts = _counts(codes)
    seen = np.bincount(counts.indices, minlength=1 << _BITS)
    kept = np.flatnonzero(seen >= _MIN_EXAMPLES)
    features = counts[:, kept]
    ratios = _log_count_ratios(features, is_positive)
    features.data = features.data * ratios[features.indices]
    longest = float(np.quantile(_sizes(codes), _LONGEST_QUANTILE))
    features.data /= np.repeat(_divisors(codes, longest), np.diff(features.indptr)).astype(np.float32)
    fitted, bias = _fit(features, is_positive)
    weights = np.zeros(1 << _BITS, np.float32)
    weights[kept] = ratios * fitted
    return NgramModel(weights, bias, longest)


def _fit(features: _Matrix, is_positive: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float32], float]:
    """Minimise logistic loss with a squared penalty by L-BFGS."""
    signs = np.where(is_positive, 1.0, -1.0).astype(np.float32)
    transposed = features.T.tocsr()

    def loss(point: Floats) -> tuple[float, Floats]:
        weights = point[:-1].astype(np.float32)
        margins = signs * (features @ weights + np.float32(point[-1]))
        slopes = -signs / (1 + np.exp(np.minimum(margins, 80.0))) * _STRENGTH
        value = _STRENGTH * float(np.logaddexp(0.0, -margins, dtype=np.float64).sum()) + 0.5 * inner(
            point[:-1], point[:-1]
        )
        gradient = np.append(transposed @ slopes + weights, slopes.sum(dtype=np.float64))
        return value, gradient.astype(np.float64)

    found = minimise(loss, np.zeros(features.shape[1] + 1), _ITERATIONS)
    return found[:-1].astype(np.float32), float(found[-1])


def _log_count_ratios(presence: _Matrix, is_positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Compare how often each n-gram stands in positive and in negative texts, with one added to each."""
    width = presence.shape[1]
    owners = np.repeat(is_positive, np.diff(presence.indptr))
    positive = np.bincount(presence.indices[owners], minlength=width) + 1.0
    negative = np.bincount(presence.indices[~owners], minlength=width) + 1.0
    ratios = np.log((positive / positive.sum()) / (negative / negative.sum()))
    return np.asarray(ratios, np.float32)


def _counts(codes: Codes) -> _Matrix:
    """Count n-grams: a sparse matrix of texts by buckets."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(codes.ends), dtype=np.int32), _lengths(codes))
    row_parts, bucket_parts = [], []
    for buckets, is_counted in _buckets(codes):
        row_parts.append(rows[: len(buckets)][is_counted])
        bucket_parts.append(buckets[is_counted].astype(np.int32))
    ones = np.ones(sum(map(len, row_parts)), np.float32)
    places = (np.concatenate(row_parts), np.concatenate(bucket_parts))
    counted = csr_matrix((ones, places), shape=(len(codes.ends), 1 << _BITS))
    counted.sum_duplicates()
    return counted


def _buckets(codes: Codes) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]]:
    """Hash the n-grams that begin at each position, order by order, and tell which of them count.

    None counts that reaches into the next text, nor a long one that holds a character of a script without spaces.
    """
    values = codes.values
    unspaced = np.append(0, np.cumsum(is_unspaced(values)))
    hashes = np.zeros(len(values), np.uint32)
    for order in range(1, min(_MAX_ORDER, len(values)) + 1):
        size = len(values) - order + 1
        hashes = (hashes[:size] * np.uint32(0x01000193) + values[order - 1 :]) * np.uint32(0x85EBCA6B)
        hashes ^= hashes >> np.uint32(15)
        is_counted = np.ones(size, bool)
        if order > _MAX_UNSPACED_ORDER:
            is_counted = unspaced[order:] == unspaced[:size]
        crossing = codes.ends[:, None] - np.arange(1, order)
        is_counted[crossing[(crossing >= 0) & (crossing < size)]] = False
        yield (hashes * np.uint32(0x9E3779B1)) >> np.uint32(32 - _BITS), is_counted


def _starts(codes: Codes) -> npt.NDArray[np.int64]:
    return np.append(0, codes.ends[:-1])


def _lengths(codes: Codes) -> npt.NDArray[np.int64]:
    return np.diff(codes.ends, prepend=0)


def _divisors(codes: Codes, longest: float) -> Floats:
    """Divide sums by the root of the length; of a text longer than the examples, only the mean n-gram counts.

    Otherwise the same mean would make the more certain the longer a text is, beyond anything that was learnt from.
    """
    sizes = _sizes(codes)
    return np.asarray(np.sqrt(sizes) * np.sqrt(np.maximum(sizes / longest, 1.0)))


def _sizes(codes: Codes) -> Floats:
    """Count each text's n-grams of one to three characters, which stand for its length."""
    lengths = _lengths(codes)
    return np.asarray(sum(np.maximum(lengths - order, 0) for order in range(3)), np.float64).clip(1)
