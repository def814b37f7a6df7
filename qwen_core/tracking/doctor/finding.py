"""What a cause answers with when the evidence supports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["fault", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Evidence for a cause.

    Attributes:
        severity: `fault` (the curve or the run is of no use), `warning` (it is worse than it could be) or `note`.
        confidence: 0 to 1: how well the evidence supports this cause and no other.
        figures: What the sentences of the report are filled with.
        more: Keys of further sentences that hold here.
    """

    severity: Severity
    confidence: float
    figures: Mapping[str, Any]
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """A finding under the name of its cause."""

    cause: str
    finding: Finding = field(repr=False)

    @property
    def rank(self) -> tuple[int, float]:
        """Worst and surest first."""
        return SEVERITIES.index(self.finding.severity), -self.finding.confidence


def fault(confidence: float, *more: str, **figures: Any) -> Finding:
    """Make a finding of the severity `fault`.

    Args:
        confidence: 0 to 1.
        *more: Keys of further sentences.
        **figures: For the sentences.

    Returns:
        The finding.
    """
    return Finding("fault", confidence, figures, more)


def warning(confidence: float, *more: str, **figures: Any) -> Finding:
    """Make a finding of the severity `warning`.

    Args:
        confidence: 0 to 1.
        *more: Keys of further sentences.
        **figures: For the sentences.

    Returns:
        The finding.
    """
    return Finding("warning", confidence, figures, more)


def note(confidence: float, *more: str, **figures: Any) -> Finding:
    """Make a finding of the severity `note`.

    Args:
        confidence: 0 to 1.
        *more: Keys of further sentences.
        **figures: For the sentences.

    Returns:
        The finding.
    """
    return Finding("note", confidence, figures, more)
