"""What a comparison of two pipeline runs holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qwen_core.artifacts import Manifest

_SAME = 1e-9


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        name: What a person called it.
        run_key: The pipeline run.
        manifests: Of its stages, by word.
        version: Of the registry, such as `demo/3`, where the run has one.
        aliases: Of that version.
    """

    name: str
    run_key: str
    manifests: Mapping[str, Manifest]
    version: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its run key, and its version where there is one."""
        known = ", ".join([self.version, *self.aliases]) if self.version else ""
        return f"{self.run_key} ({known})" if known else self.run_key


@dataclass(frozen=True)
class Row:
    """A figure of both runs.

    Attributes:
        part: `funnel`, `sources`, `languages`, `mix`, `training` or `held-out`.
        stage: The stage's word.
        name: What it is, such as a reason, a language or a measure.
        a: Of the first run; `None` where it has none.
        b: Of the second.
        better: `a` or `b`, where more or less of it is better and they differ; else empty.
    """

    part: str
    stage: str
    name: str
    a: float | None
    b: float | None
    better: str = ""

    @property
    def ratio(self) -> float | None:
        """The second to the first."""
        return self.b / self.a if self.a and self.b is not None else None

    @property
    def is_same(self) -> bool:
        """Whether both have the same value."""
        if self.a is None or self.b is None:
            return self.a is self.b
        return abs(self.a - self.b) <= _SAME * max(abs(self.a), abs(self.b))


@dataclass(frozen=True)
class Change:
    """A recipe key whose values differ; `None` where a run has no such key."""

    key: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Curve:
    """A curve of both runs, as pairs of step and value."""

    stage: str
    name: str
    a: list[tuple[float, float]]
    b: list[tuple[float, float]]


@dataclass(frozen=True)
class Comparison:
    """All that differs, and the figures that matter even where they do not.

    Attributes:
        a: Title of the first run.
        b: Title of the second.
        shared: Stages whose artifact is the same one.
        data: Funnel, sources, languages, mix.
        files: Source files that only one of the two has read: `a`, `b` (how many), `only_a`, `only_b` (the first few).
        recipe: Keys that differ.
        result: Ends of the curves, and figures on held-out sets.
        notes: What one must know to read it rightly.
        curves: For the figure.
    """

    a: str
    b: str
    shared: list[str]
    data: list[Row]
    files: dict[str, Any]
    recipe: list[Change]
    result: list[Row]
    notes: list[str]
    curves: list[Curve] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON, with ratios; curves are left out.

        Returns:
            The comparison.
        """
        told = asdict(self)
        del told["curves"]
        for name in ("data", "result"):
            told[name] = [asdict(row) | {"ratio": row.ratio} for row in getattr(self, name)]
        return told
