"""Quality rules: documents in, for each one stable reason to drop it, or none. docs/data.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from qwen_core.data.rules.judge import Objects, Verdict, judge

__all__ = ["Verdict", "judge", "reasons"]


def reasons(table: pa.Table, words: object, thresholds: Mapping[str, Any]) -> Objects:
    """Judge documents without taking over edits; to go once `filter` calls `judge`.

    Args:
        table: With `text` and `language`.
        words: Not looked at.
        thresholds: The recipe's `filter` section.

    Returns:
        For each document the first rule's reason that it breaks, or `None`.
    """
    return judge(table["text"].to_pylist(), table["language"].to_pylist(), thresholds).reasons
