"""Measures of a curve, in numpy: how it is spaced, how noisy it is, where it leaps, whether it repeats.

All are robust: medians instead of means, so that one wild point does not hide the others. `values` are finite and in
the order of the x-axis; a curve of 100,000 points takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qwen_core.tracking.doctor.record import Floats

NORMAL = 1.4826  # median absolute deviation to standard deviation, for normal noise
_MOST_MEDIANS = 100


def noise_of(values: Floats) -> float:
    """Estimate the standard deviation of a curve around its own smooth course.

    Second differences remove the trend; of independent noise they have a variance of 6.

    Args:
        values: At least 3.

    Returns:
        The noise, in the unit of the values; 0 where there are fewer than 3.
    """
    if len(values) < 3:
        return 0.0
    return float(NORMAL * np.median(np.abs(np.diff(values, 2))) / np.sqrt(6.0))


def smooth(values: Floats, width: int) -> Floats:
    """Take a running median; at the ends the window is cut off.

    Args:
        values: The curve.
        width: Points of the window, made odd.

    Returns:
        As many values.
    """
    half = min(max(1, width // 2), max(0, (len(values) - 1) // 2))
    if half == 0:
        return values.copy()
    padded = np.concatenate((np.full(half, np.nan), values, np.full(half, np.nan)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    middle = np.median(windows[half : len(values) - half], axis=1)
    first = np.array([np.median(values[: half + 1 + place]) for place in range(half)])
    last = np.array([np.median(values[len(values) - 2 * half + place :]) for place in range(half)])
    return np.concatenate((first, middle, last))


def course_of(values: Floats) -> Floats:
    """Find the smooth course of a curve, with a window that fits its length.

    Args:
        values: The curve.

    Returns:
        As many values.
    """
    return smooth(values, int(np.clip(len(values) // 15, 5, 101)))


def ends_of(values: Floats, share: float = 0.1) -> tuple[float, float]:
    """Take the level at both ends.

    Args:
        values: The curve.
        share: Of the points at each end, at least one.

    Returns:
        Medians of the first and of the last points.
    """
    count = max(1, round(len(values) * share))
    return float(np.median(values[:count])), float(np.median(values[-count:]))


def slope_of(steps: Floats, values: Floats) -> float:
    """Fit a robust line (Theil, 1950; Sen, 1968) through at most 100 medians of neighbouring points.

    Args:
        steps: Rising.
        values: As many.

    Returns:
        Change of the value per step; 0 for fewer than 2 points.
    """
    if len(values) < 2:
        return 0.0
    x, y = steps, values
    if len(values) > _MOST_MEDIANS:
        bounds = np.linspace(0, len(values), _MOST_MEDIANS + 1).astype(int)
        x, y = (np.array([np.median(one[a:b]) for a, b in pairwise(bounds)]) for one in (steps, values))
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    return float(np.median((y[second] - y[first])[apart > 0] / apart[apart > 0])) if (apart > 0).any() else 0.0


def spikes_of(values: Floats, course: Floats, least: float = 8.0) -> NDArray[np.intp]:
    """Find points that stand high above the course of their neighbours.

    Args:
        values: The curve.
        course: Its smooth course, see `course_of`.
        least: Height in units of the noise; of a curve without noise, a tenth of its level counts.

    Returns:
        Places of the highest point of each spike.
    """
    if len(values) < 8:
        return np.zeros(0, np.intp)
    height = values - course
    noise = max(noise_of(values), float(NORMAL * np.median(np.abs(height))))
    is_high = height > np.maximum(least * noise, 0.1 * np.abs(course))
    starts = np.flatnonzero(is_high & ~np.append(False, is_high[:-1]))
    ends = np.flatnonzero(is_high & ~np.append(is_high[1:], False)) + 1
    return np.array([a + np.argmax(height[a:b]) for a, b in zip(starts, ends, strict=True)], dtype=np.intp)


def gaps_of(steps: Floats, least: float = 8.0, share: float = 0.05) -> list[tuple[float, float]]:
    """Find stretches of the x-axis without points, in a curve that is regular elsewhere.

    Args:
        steps: Rising, without repetition.
        least: How many times the usual interval a gap is at least.
        share: Of the whole axis that a gap takes at least.

    Returns:
        Last step before and first step after each gap.
    """
    if len(steps) < 8:
        return []
    apart = np.diff(steps)
    usual = np.median(apart)
    is_gap = (apart > least * usual) & (apart > share * (steps[-1] - steps[0]))
    return [(float(steps[place]), float(steps[place + 1])) for place in np.flatnonzero(is_gap)[:10]]


def folded(values: Floats, phase: Floats, bins: int = 12) -> float:
    """Measure how much of a curve's deviation from its course is the same in each period.

    Args:
        values: Deviations from the course.
        phase: Place of each point within its period, 0 to 1.
        bins: Pieces of the period.

    Returns:
        Share of the variance that the average period explains beyond chance, 0 to 1.
    """
    if len(values) < 3 * bins:
        return 0.0
    place = np.minimum((phase * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    means = np.bincount(place, values, bins) / np.maximum(counts, 1)
    spread = float(np.var(values))
    if spread == 0:
        return 0.0
    explained = float(np.sum(counts * (means - values.mean()) ** 2) / len(values)) / spread
    chance = (np.count_nonzero(counts) - 1) / max(1, len(values) - 1)
    return max(0.0, (explained - chance) / (1 - chance))


def shifts_at(values: Floats, places: Iterable[int], width: int = 8) -> list[tuple[float, float]]:
    """Measure leaps of the level between two neighbouring points, beyond the curve's own trend.

    Args:
        values: The curve.
        places: Of the first point after each leap.
        width: Points on each side.

    Returns:
        Of each the leap (positive is upwards), and its size in units of its own uncertainty; 0 and 0 near the ends.
    """
    noise = max(noise_of(values), 1e-12 * float(np.abs(values).max(initial=0.0) or 1.0))
    return [_shift_at(values, place, width, noise) for place in places]


def _shift_at(values: Floats, place: int, width: int, noise: float) -> tuple[float, float]:
    before, after = values[max(0, place - width) : place], values[place : place + width]
    if min(len(before), len(after)) < 3:
        return 0.0, 0.0
    apart = (len(before) + len(after)) / 2
    trend = (_line(before) + _line(after)) / 2
    leap = float(np.median(after) - np.median(before)) - trend * apart
    of_medians = 1.57 * (1 / len(before) + 1 / len(after))
    of_trend = apart**2 * 3 * (1 / len(before) ** 3 + 1 / len(after) ** 3)
    return leap, abs(leap) / (noise * float(np.sqrt(of_medians + of_trend)))


def _line(values: Floats) -> float:
    return slope_of(np.arange(len(values), dtype=np.float64), values)
