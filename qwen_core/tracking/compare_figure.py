"""A comparison of two runs as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwen_core.tracking.compare_text import headlines, label, number
from qwen_core.tracking.comparison import Comparison, Curve, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARS = 10


def comparison_figure(comparison: Comparison) -> Figure:
    """Draw a comparison: documents and tokens, validation curves, the result's change.

    Args:
        comparison: The comparison.

    Returns:
        The figure; no display is needed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(f"{comparison.b}  against  {comparison.a}", parse_math=False)
    axes = figure.subplots(2, 2)
    kept = [row for row in comparison.data if row.part == "funnel" and row.name != "came"]
    _bars(axes[0][0], comparison, kept, "documents")
    mix = [row for row in comparison.data if row.part == "mix" and " of " in row.name]
    _bars(axes[0][1], comparison, mix or [r for r in comparison.data if r.part == "languages"], "tokens for training")
    _draw_curves(axes[1][0], comparison)
    _draw_result(axes[1][1], comparison)
    return figure


def _bars(axes: Any, comparison: Comparison, rows: Sequence[Row], title: str) -> None:
    shown = sorted(rows, key=lambda row: -max(row.a or 0, row.b or 0))[:_BARS]
    places = range(len(shown))
    for shift, values, name, colour in (
        (-0.2, [row.a or 0 for row in shown], comparison.a, "C7"),
        (0.2, [row.b or 0 for row in shown], comparison.b, "C0"),
    ):
        bars = axes.barh([place + shift for place in places], values, 0.38, label=name, color=colour)
        axes.bar_label(bars, [number(value) for value in values], padding=3, fontsize="small")
    axes.set_yticks(list(places), [label(row) for row in shown], fontsize="small", parse_math=False)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.margins(x=0.15)
    if shown:
        axes.legend(fontsize="small")


def _draw_curves(axes: Any, comparison: Comparison) -> None:
    names = ("validation/bits_per_byte", "validation/loss", "train/loss")
    curve = next((c for name in names for c in comparison.curves if c.name == name), None)
    if curve is None:
        axes.set_axis_off()
        return
    _draw_both(axes, comparison, curve)
    axes.set(title=f"{curve.stage} {curve.name}".replace("_", " "), xlabel="optimiser step")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _draw_both(axes: Any, comparison: Comparison, curve: Curve) -> None:
    for points, name, colour in ((curve.a, comparison.a, "C7"), (curve.b, comparison.b, "C0")):
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label=name, color=colour, markersize=3)


def _draw_result(axes: Any, comparison: Comparison) -> None:
    """Draw how much each headline changed, green where it got better."""
    rows = [row for row in headlines(comparison) if row.a and row.b is not None][:_BARS]
    if not rows:
        axes.set_axis_off()
        return
    values = [100 * ((row.ratio or 1.0) - 1) for row in rows]
    colours = [{"b": "C2", "a": "C3"}.get(row.better, "C7") for row in rows]
    bars = axes.barh(range(len(rows)), values, color=colours)
    axes.bar_label(bars, [f"{number(row.a)} → {number(row.b)}" for row in rows], padding=3, fontsize="small")
    axes.set_yticks(range(len(rows)), [label(row) for row in rows], fontsize="small", parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(title="result: change (green is better)", xlabel="%")
    axes.margins(x=0.35)
