"""Calibration: the log odds of several views become one chance that holds on texts that no model has seen.

First Platt scaling (Platt, 1999), a logistic regression of the label on the views' log odds; with two views this is
also how they are combined, for the better one gets the larger weight. Where the examples are many, a rising curve of
some twenty points follows (isotonic regression on bins of equal size; Zadrozny and Elkan, 2002), with straight lines
between: steps would make ties of texts that are told apart. Both are fitted on cross-fitted log odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_PENALTY = 1e-3
_BINS = 20
_MIN_BIN = 100  # examples in a bin of the curve; fewer bins where they do not suffice
_SLOPE = 0.05  # of the curve at least, so that it never joins two texts


@dataclass(frozen=True)
class Scaling:
    """What makes a chance of log odds.

    Attributes:
        weights: Of the views, none below 0.
        bias: Added to the weighted log odds.
        knots: Rising points (scaled log odds, corrected log odds); empty corrects nothing.
    """

    weights: tuple[float, ...]
    bias: float
    knots: tuple[tuple[float, float], ...] = ()

    def chances(self, log_odds: Floats) -> Floats:
        """Turn log odds into chances.

        Args:
            log_odds: [texts, views].

        Returns:
            0 to 1, for each text.
        """
        scaled = _weighted(log_odds, self.weights) + self.bias
        if self.knots:
            x, y = np.array(self.knots).T
            beyond = scaled - np.clip(scaled, x[0], x[-1])
            scaled = _SLOPE * scaled + (1 - _SLOPE) * (np.interp(scaled, x, y) + beyond)
        return _chance(scaled)


def fit_scaling(log_odds: Floats, is_positive: npt.NDArray[np.bool_]) -> Scaling:
    """Fit a scaling.

    Args:
        log_odds: [texts, views], of models that did not see these texts.
        is_positive: Labels; both must occur.

    Returns:
        The scaling.
    """
    weights, bias = _fit_weights(log_odds, is_positive)
    return Scaling(weights, bias, _fit_knots(_weighted(log_odds, weights) + bias, is_positive))


def _fit_weights(log_odds: Floats, is_positive: npt.NDArray[np.bool_]) -> tuple[tuple[float, ...], float]:
    from scipy.optimize import minimize

    views = log_odds.shape[1]
    positive, negative = int(is_positive.sum()), int((~is_positive).sum())
    # Platt's targets: a label of few examples is not taken for certain.
    targets = np.where(is_positive, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(point: Floats) -> tuple[float, Floats]:
        odds = _weighted(log_odds, point[:-1]) + point[-1]
        value = float((np.logaddexp(0.0, odds) - targets * odds).mean() + _PENALTY * (point[:-1] ** 2).sum())
        errors = (_chance(odds) - targets) / len(odds)
        return value, np.append((errors[:, None] * log_odds).sum(axis=0) + 2 * _PENALTY * point[:-1], errors.sum())

    start = np.append(np.full(views, 1 / views), 0.0)
    bounds = [(0.0, None)] * views + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return tuple(float(weight) for weight in found[:-1]), float(found[-1])


def _fit_knots(scaled: Floats, is_positive: npt.NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    from scipy.optimize import isotonic_regression

    bins = min(_BINS, len(scaled) // _MIN_BIN)
    if bins < 3:
        return ()
    parts = np.array_split(np.argsort(scaled, kind="stable"), bins)
    x = np.array([scaled[part].mean() for part in parts])
    shares = np.array([(is_positive[part].sum() + 0.5) / (len(part) + 1) for part in parts])
    y = isotonic_regression(np.log(shares / (1 - shares))).x
    keep = np.append(True, np.diff(x) > 0)
    return tuple(zip(x[keep].tolist(), y[keep].tolist(), strict=True))


def _weighted(log_odds: Floats, weights: Sequence[float] | Floats) -> Floats:
    return np.asarray(np.einsum("tv,v->t", log_odds, np.asarray(weights)))


def _chance(log_odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -30, 30))))
