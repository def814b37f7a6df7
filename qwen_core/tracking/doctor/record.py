"""What the doctor looks at: curves as they were logged, and the run around them.

Nothing is sorted, filtered or averaged here: a step that goes backwards, a NaN and a point that was logged twice are
what the doctor looks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LARGEST = 1.7e308  # MLflow's databases hold infinity as the largest number of a double


@dataclass(frozen=True)
class Curve:
    """One metric, in the order in which it was logged.

    Attributes:
        name: As logged.
        steps: The x-axis as logged.
        values: The figures; NaN and infinity included.
        seconds: Wall time of each point since the epoch; NaN where unknown.
    """

    name: str
    steps: Floats
    values: Floats
    seconds: Floats

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_finite(self) -> NDArray[np.bool_]:
        """Tell for each point whether a chart can show it."""
        return np.isfinite(self.values)

    @property
    def interval(self) -> float:
        """Usual number of steps between two points; 0 with fewer than two."""
        return float(np.median(np.diff(self.steps))) if len(self) > 1 else 0.0

    def by_step(self) -> Curve:
        """Lay the curve out as a chart should show it.

        Returns:
            Finite points with rising steps; of a step that was logged twice the point that was logged last.
        """
        kept = np.flatnonzero(self.is_finite)
        order = kept[np.argsort(self.steps[kept], kind="stable")]
        steps = self.steps[order]
        is_last = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.zeros(0, bool)
        return self.take(order[is_last])

    def take(self, places: NDArray[Any]) -> Curve:
        """Keep some points.

        Args:
            places: Indices, or a mask.

        Returns:
            The smaller curve.
        """
        return Curve(self.name, self.steps[places], self.values[places], self.seconds[places])


def make_curve(name: str, points: Iterable[Sequence[float]]) -> Curve:
    """Make a curve of points in any order.

    Args:
        name: Of the metric.
        points: Step, value and seconds since the epoch of each point; NaN seconds where the order is all that is
            known.

    Returns:
        The curve, ordered by time where there is one; infinity stands again where a database held the largest number.
    """
    table = np.array([tuple(point) for point in points], dtype=np.float64).reshape(-1, 3)
    seconds = table[:, 2]
    if np.isfinite(seconds).all():
        table = table[np.lexsort((table[:, 0], seconds))]
    values = table[:, 1].copy()
    values[np.abs(values) > _LARGEST] = np.sign(values[np.abs(values) > _LARGEST]) * np.inf
    return Curve(name, table[:, 0], values, table[:, 2])


@dataclass(frozen=True)
class Run:
    """A run of any tool, as far as curves tell of it.

    Attributes:
        run_id: MLflow's id, or the path of a file.
        name: For people.
        source: Where it was read from.
        status: MLflow's word, or empty.
        params: Settings as texts, by name.
        tags: Tags, by name.
        curves: Metrics with a history, by name.
        others: Names of metrics that were not read, such as system figures.
        siblings: Runs of the same experiment with the same settings; of them only the loss is known.
        started: Seconds since the epoch; NaN where unknown.
        ended: As `started`; NaN while it runs.
    """

    run_id: str
    name: str
    source: str
    status: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    others: Sequence[str] = ()
    siblings: Sequence[Run] = ()
    started: float = float("nan")
    ended: float = float("nan")

    @property
    def stage(self) -> str:
        """Stage of a run of ours, else empty."""
        return self.tags.get("qwen_core.stage", "")
