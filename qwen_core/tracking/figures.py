"""Figures that are logged to MLflow: loss curves and the filter funnel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_curve(history: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Draw training and validation loss over the steps.

    Args:
        history: One mapping for each event, with `step`.
        title: The stage's word.

    Returns:
        The figure; no display is needed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, style in (("train/loss", "-"), ("validation/loss", "o-")):
        points = [(event["step"], event[name]) for event in history if name in event]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name, markersize=4)
    axes.set(title=title, xlabel="optimiser step", ylabel="nats")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def funnel(kept: Mapping[str, int], drops: Mapping[str, int]) -> Figure:
    """Draw what came in, what each reason took away, and what is left.

    Args:
        kept: Documents at the start and at the end, in this order, by name.
        drops: Documents dropped, by reason.

    Returns:
        The figure; no display is needed.
    """
    (first, total), (last, left) = kept.items()
    reasons = sorted(drops.items(), key=lambda item: -item[1])
    names = [first, *(reason for reason, _ in reasons), last]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1 + 0.35 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [total, *(count for _, count in reasons), left], color=["C0", *["C3"] * len(reasons), "C2"])
    axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="documents")
    axes.margins(x=0.15)
    return figure
