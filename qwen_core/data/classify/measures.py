"""Measures of scores on held-out texts: ranking, decisions, calibration, and thresholds that follow from them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def roc_auc(values: Floats, is_positive: Bools) -> float:
    """Compute the area under the ROC curve: the chance that a positive outranks a negative (ties count half).

    Args:
        values: Scores.
        is_positive: Truth.

    Returns:
        0 to 1; NaN where only one label occurs.
    """
    positive, negative = int(is_positive.sum()), int((~is_positive).sum())
    if not positive or not negative:
        return float("nan")
    _, places, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[places]  # Mann and Whitney's statistic, by mean ranks
    return float((ranks[is_positive].sum() - positive * (positive + 1) / 2) / (positive * negative))


def roc_curve(values: Floats, is_positive: Bools) -> tuple[Floats, Floats]:
    """Trace the ROC curve.

    Args:
        values: Scores.
        is_positive: Truth.

    Returns:
        False and true positive rates, rising from 0 to 1, one point for each distinct score.
    """
    hits, called = _called(values, is_positive)
    misses = called - hits
    return (
        np.append(0.0, misses / max(1, misses[-1] if len(misses) else 0)),
        np.append(0.0, hits / max(1, hits[-1] if len(hits) else 0)),
    )


def average_precision(values: Floats, is_positive: Bools) -> float:
    """Compute the area under the precision-recall curve as a sum of steps.

    Args:
        values: Scores.
        is_positive: Truth.

    Returns:
        0 to 1; NaN where no label is positive.
    """
    if not is_positive.any():
        return float("nan")
    hits, called = _called(values, is_positive)
    return float((np.diff(hits, prepend=0) * hits / called).sum() / hits[-1])


def f1_score(values: Floats, is_positive: Bools, threshold: float = 0.5) -> float:
    """Compute F1 at a threshold.

    Args:
        values: Scores.
        is_positive: Truth.
        threshold: Scores from here on count as positive.

    Returns:
        0 to 1.
    """
    called = values >= threshold
    hits = int((called & is_positive).sum())
    return 2 * hits / max(1, int(called.sum()) + int(is_positive.sum()))


def reliability(values: Floats, is_positive: Bools, num_bins: int = 10) -> list[dict[str, float]]:
    """Compare chances with what came true, by bins of equal width.

    Args:
        values: Chances, 0 to 1.
        is_positive: Truth.
        num_bins: How many bins.

    Returns:
        For each bin that is not empty: `chance` (mean), `share` (of positives) and `count`.
    """
    bins = np.minimum((values * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    chances = np.bincount(bins, weights=values, minlength=num_bins)
    shares = np.bincount(bins, weights=is_positive, minlength=num_bins)
    return [
        {"chance": float(chances[i] / n), "share": float(shares[i] / n), "count": int(n)}
        for i, n in enumerate(counts)
        if n
    ]


def calibration_error(values: Floats, is_positive: Bools, num_bins: int = 10) -> float:
    """Compute the expected calibration error: the mean gap between chance and share, by bins (Naeini et al., 2015).

    Args:
        values: Chances, 0 to 1.
        is_positive: Truth.
        num_bins: How many bins.

    Returns:
        0 (every chance is true) to 1.
    """
    table = reliability(values, is_positive, num_bins)
    return sum(row["count"] * abs(row["chance"] - row["share"]) for row in table) / max(1, len(values))


def precision_threshold(values: Floats, is_positive: Bools, precision: float) -> float | None:
    """Find the lowest threshold above which a share of the called are truly positive.

    Args:
        values: Scores.
        is_positive: Truth.
        precision: The share that is wanted, 0 to 1.

    Returns:
        A number that the scores called exceed, or `None` where no threshold reaches the share.
    """
    hits, called = _called(values, is_positive)
    reached = np.flatnonzero(hits >= precision * called)
    if not len(reached):
        return None
    lowest = np.unique(values)[::-1][reached[-1]]
    return float(np.nextafter(lowest, -np.inf))


def keep_threshold(values: Floats, keep_ratio: float) -> float:
    """Find the threshold that keeps a share of the best scores.

    Args:
        values: Scores of a sample.
        keep_ratio: The share, 0 to 1.

    Returns:
        The lowest score that is kept.
    """
    return float(np.quantile(values, 1 - keep_ratio, method="higher"))


def _called(values: Floats, is_positive: Bools) -> tuple[Floats, Floats]:
    """Count, for each distinct score from the highest down, the positives and all from there on."""
    distinct, places = np.unique(values, return_inverse=True)
    hits = np.bincount(places, weights=is_positive, minlength=len(distinct))[::-1]
    sizes = np.bincount(places, minlength=len(distinct))[::-1]
    return np.cumsum(hits), np.cumsum(sizes).astype(np.float64)
