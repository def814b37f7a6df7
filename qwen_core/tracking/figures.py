"""Figures that training stages log to MLflow: loss curves."""

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
