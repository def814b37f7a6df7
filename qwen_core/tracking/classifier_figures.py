"""Figures of a classifier on held-out texts: its ROC curve, and whether its chances come true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    Floats = npt.NDArray[np.float64]


def roc_figure(curves: Mapping[str, tuple[Floats, Floats]], title: str) -> Figure:
    """Draw ROC curves.

    Args:
        curves: False and true positive rates, by name of the curve.
        title: Of the figure.

    Returns:
        The figure; no display is needed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, (false, true) in curves.items():
        axes.plot(false, true, label=name)
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(title=title, xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def reliability_figure(tables: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> Figure:
    """Draw how often what was given a chance came true, and how many texts got it.

    Args:
        tables: Rows of `chance`, `share` and `count`, by name of the curve.
        title: Of the figure.

    Returns:
        The figure; no display is needed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    above.plot([0, 1], [0, 1], ":", color="grey")
    for name, rows in tables.items():
        chances = [row["chance"] for row in rows]
        above.plot(chances, [row["share"] for row in rows], "o-", label=name, markersize=4)
        below.plot(chances, [row["count"] for row in rows], "o-", markersize=3)
    above.set(title=title, ylabel="share that is positive")
    above.legend(loc="upper left")
    above.grid(alpha=0.3)
    below.set(xlabel="score", ylabel="held-out texts", yscale="log", xlim=(0, 1))
    return figure
