"""Curves as text: a grid for the losses, one line for any other; in plain ASCII where the terminal asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.text import Text

from qwen_core.tracking.doctor.record import Curve, Floats

_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_MARKS, _PLAIN_MARKS = ("·", "●"), (".", "o")
STYLES = ("blue", "yellow")
_AXIS_CHARS = 9


@dataclass(frozen=True)
class Grid:
    """A plot's bounds in the unit of the curves, and its size in characters."""

    left: float
    right: float
    low: float
    high: float
    width: int
    height: int

    def places(self, steps: Floats, values: Floats) -> set[tuple[int, int]]:
        """Find the cells of points.

        Args:
            steps: Finite.
            values: Finite, as many.

        Returns:
            Column and row of each, rows from above.
        """
        x = (steps - self.left) / max(1e-300, self.right - self.left) * (self.width - 1)
        y = (self.high - values) / max(1e-300, self.high - self.low) * (self.height - 1)
        column = np.clip(np.round(x), 0, self.width - 1).astype(int)
        row = np.clip(np.round(y), 0, self.height - 1).astype(int)
        return set(zip(column.tolist(), row.tolist(), strict=True))


def show(value: float) -> str:
    """Write a number as briefly as it stays telling.

    Args:
        value: Any; NaN and infinity too.

    Returns:
        Such as `1,000`, `3.142`, `3e-04`.
    """
    if not np.isfinite(value):
        return str(float(value))
    if value == round(value) and abs(value) < 1e12:
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:.2e}" if abs(value) < 1e-3 else f"{value:.4g}"


def sparkline(curve: Curve, width: int, is_plain: bool = False) -> str:
    """Draw a curve on one line.

    Args:
        curve: Any; points that are not finite are left out.
        width: Characters at most.
        is_plain: Whether to use ASCII alone.

    Returns:
        A bar for each stretch of the x-axis, a blank where it has no points.
    """
    bars = _PLAIN_BARS if is_plain else _BARS
    points = curve.by_step()
    if not len(points):
        return ""
    span = float(np.ptp(points.steps))
    count = min(width, len(points)) if span else 1
    column = np.minimum(((points.steps - points.steps[0]) / (span or 1.0) * count).astype(int), count - 1)
    sums, counts = np.bincount(column, points.values, count), np.bincount(column, minlength=count)
    means = sums / np.maximum(counts, 1)
    known = means[counts > 0]
    low, high = float(known.min()), float(known.max())
    heights = np.zeros(count, int) if high == low else np.round((means - low) / (high - low) * 7).astype(int)
    return "".join(bars[h] if n else " " for h, n in zip(heights.clip(0, 7), counts, strict=True))


def plot(curves: Sequence[Curve], width: int, height: int = 11, is_plain: bool = False) -> list[Text]:
    """Draw up to two curves over one another.

    Args:
        curves: With finite points; the second is drawn above the first.
        width: Characters of a line at most, the axis included.
        height: Lines of the grid.
        is_plain: Whether to use ASCII alone.

    Returns:
        Lines, with the axes; none where there is nothing to draw.
    """
    shown = {place: drawn for place, curve in enumerate(curves) if len(drawn := curve.by_step())}
    if not shown:
        return []
    grid = _grid(list(shown.values()), max(20, width - _AXIS_CHARS - 2), height)
    cells: dict[tuple[int, int], int] = {}
    for place, curve in shown.items():
        cells |= dict.fromkeys(grid.places(curve.steps, curve.values), place)
    marks = _PLAIN_MARKS if is_plain else _MARKS
    lines = [_line(grid, row, cells, marks, is_plain) for row in range(grid.height)]
    corner, rule = ("+", "-") if is_plain else ("└", "─")
    lines.append(Text(" " * (_AXIS_CHARS + 1) + corner + rule * grid.width, style="dim"))
    left, right = show(grid.left), show(grid.right)
    if grid.right > grid.left:
        blank = " " * max(1, grid.width - len(left) - len(right))
        lines.append(Text(" " * (_AXIS_CHARS + 2) + left + blank + right, style="dim"))
    else:
        lines.append(Text(" " * (_AXIS_CHARS + 2) + left, style="dim"))
    return lines


def _grid(curves: Sequence[Curve], width: int, height: int) -> Grid:
    """Choose bounds; a few wild points do not flatten the rest."""
    steps = np.concatenate([curve.steps for curve in curves])
    values = np.concatenate([curve.values for curve in curves])
    low, high = float(values.min()), float(np.quantile(values, 0.995)) if len(values) > 50 else float(values.max())
    if high <= low:
        low, high = low - max(0.5, abs(low) * 0.1), low + max(0.5, abs(low) * 0.1)
    return Grid(float(steps.min()), float(steps.max()), low, high, width, height)


def _line(grid: Grid, row: int, cells: dict[tuple[int, int], int], marks: tuple[str, str], is_plain: bool) -> Text:
    value = grid.high - (grid.high - grid.low) * row / (grid.height - 1)
    label = show(float(f"{value:.3g}")) if row in (0, grid.height // 2, grid.height - 1) else ""
    text = Text(f"{label:>{_AXIS_CHARS}} {'|' if is_plain else '│'}", style="dim")
    for column in range(grid.width):
        which = cells.get((column, row))
        text.append(" " if which is None else marks[which], style="" if which is None else f"not dim {STYLES[which]}")
    text.rstrip()
    return text
