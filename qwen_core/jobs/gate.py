"""The gate between challenger and champion: each figure against a limit that follows from the champion's.

figures of both, on the same held-out data ─▶ one check for each ─▶ passed, failed, or only told ─▶ decision
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASSED, FAILED, TOLD = "passed", "failed", "told"
BITS = "bits_per_byte"
LANGUAGE = f"{BITS}/language/"
ACCURACY, ANSWERS = "preference_accuracy", "answer_loss"


@dataclass(frozen=True)
class Limits:
    """How much worse a challenger may be; the recipe's section `release` explains each."""

    max_bits_per_byte_regression_ratio: float = 0.01
    max_language_regression_ratio: float = 0.05
    min_language_bytes: int = 20_000
    max_preference_accuracy_drop: float = 0.05
    max_answer_loss_regression_ratio: float = 0.05


@dataclass(frozen=True)
class Check:
    """One figure.

    Attributes:
        name: Of the figure.
        champion: Its value; `None` where there is no champion, or none was measured.
        challenger: Its value.
        limit: Up to which, or for an accuracy from which, it passes; `None` where nothing is compared.
        verdict: `passed`, `failed` or `told`, which decides nothing.
        reason: In words.
    """

    name: str
    champion: float | None
    challenger: float | None
    limit: float | None
    verdict: str
    reason: str


def judge(
    champion: Mapping[str, float] | None,
    challenger: Mapping[str, float],
    limits: Limits,
    language_bytes: Mapping[str, int],
) -> list[Check]:
    """Compare a challenger with the champion.

    Args:
        champion: Its figures on the challenger's held-out data, those that could be measured; `None` where there is no
            champion: then every figure need only be a number.
        challenger: `bits_per_byte`, `bits_per_byte/language/<name>`, `preference_accuracy`, `answer_loss`.
        limits: How much worse it may be.
        language_bytes: Held-out text of each language.

    Returns:
        A check for each figure. A figure that is not a number never passes.
    """
    rises = {
        BITS: limits.max_bits_per_byte_regression_ratio,
        ANSWERS: limits.max_answer_loss_regression_ratio,
    }
    checks = []
    for name in [BITS, *sorted(one for one in challenger if one.startswith(LANGUAGE)), ACCURACY, ANSWERS]:
        theirs = None if champion is None else champion.get(name)
        ours = challenger.get(name)
        if name == ACCURACY:
            limit = None if theirs is None else theirs - limits.max_preference_accuracy_drop
        else:
            limit = None if theirs is None else theirs * (1 + rises.get(name, limits.max_language_regression_ratio))
        if champion is not None and theirs is None and name != BITS:
            checks.append(Check(name, None, ours, None, *_alone(ours, "the champion has no such figure on this data")))
        elif name.startswith(LANGUAGE) and language_bytes.get(name[len(LANGUAGE) :], 0) < limits.min_language_bytes:
            size = language_bytes.get(name[len(LANGUAGE) :], 0)
            checks.append(Check(name, theirs, ours, limit, *_alone(ours, f"only {size:,} bytes of it are held out")))
        elif champion is not None and theirs is None:
            checks.append(Check(name, None, ours, None, FAILED, "the champion could not be measured on this data"))
        else:
            checks.append(Check(name, theirs, ours, limit, *_verdict(name, ours, limit)))
    return checks


def decision(checks: Sequence[Check], champion_version: str | None) -> tuple[bool, str]:
    """Draw the conclusion.

    Args:
        checks: All of them.
        champion_version: `None` where there is no champion.

    Returns:
        Whether the challenger passes, and why, in words.
    """
    failed = [check for check in checks if check.verdict == FAILED]
    if failed:
        return False, "; ".join(f"{check.name} {check.reason}" for check in failed)
    if champion_version is None:
        return True, "there was no champion"
    bits = next(check for check in checks if check.name == BITS)
    told = f"{bits.challenger:.4f} against {bits.champion:.4f} bits per byte of version {champion_version}"
    decided = sum(check.verdict == PASSED for check in checks)
    return True, f"{told}, {decided} of {decided} checks passed"


def as_rows(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Lay checks out as rows of plain JSON; what is not a number becomes a text, for JSON knows none.

    Args:
        checks: All of them.

    Returns:
        One mapping for each.
    """
    return [{name: _plain(value) for name, value in asdict(check).items()} for check in checks]


def _alone(value: float | None, reason: str) -> tuple[str, str]:
    """Judge a figure that nothing is compared with."""
    if value is None or math.isfinite(value):
        return TOLD, reason
    return FAILED, f"is {value}: no number"


def _verdict(name: str, value: float | None, limit: float | None) -> tuple[str, str]:
    if value is None:
        return FAILED, "was not measured"
    if not math.isfinite(value):
        return FAILED, f"is {value}: no number"
    if limit is None or math.isnan(limit):
        return PASSED, "is a number; there is nothing to compare it with"
    is_within, sign = (value >= limit, "≥") if name == ACCURACY else (value <= limit, "≤")
    if is_within:
        return PASSED, f"is {value:.4f}, within the limit ({sign} {limit:.4f})"
    return FAILED, f"is {value:.4f}, beyond the limit ({sign} {limit:.4f})"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
