"""A comparison of two runs as Markdown, and as a table of MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_core.tracking.comparison import Comparison, Row

_MOST_ROWS = 12
_MOST_CHANGES = 25
_IN_A_LINE = 4
HEADLINES = ("bits_per_byte", "answer_loss", "preference_accuracy")
"""Measures of `evaluate` that a person looks at first."""


def number(value: float | None) -> str:
    """Write a figure for a person.

    Args:
        value: The figure.

    Returns:
        Text: whole numbers with separators, others to four digits.
    """
    if value is None:
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def change(row: Row) -> str:
    """Write how the second run differs from the first: an arrow and a percentage.

    Args:
        row: The figure.

    Returns:
        Such as `↓ 3.2%`, `=`, or `new`.
    """
    if row.is_same:
        return "="
    if row.a is None:
        return "new"
    if row.b is None:
        return "gone"
    arrow = "↑" if row.b > row.a else "↓"
    if not row.a:
        return arrow
    percent = 100 * (row.b - row.a) / abs(row.a)
    return f"{arrow} {abs(percent):.1f}%" if abs(percent) < 1000 else f"{arrow} ×{row.b / row.a:,.0f}"


def verdict(row: Row) -> str:
    """Say which run is better.

    Args:
        row: The figure.

    Returns:
        `better` or `worse`, of the second run; empty where neither is.
    """
    return {"a": "worse", "b": "better"}.get(row.better, "")


def headlines(comparison: Comparison) -> list[Row]:
    """Choose the figures of the result that are looked at first.

    Args:
        comparison: The comparison.

    Returns:
        Whole measures of the held-out sets, by language below; without them, ends of the validation curves.
    """
    found = [row for row in comparison.result if row.part == "held-out" and _is_headline(row.name)]
    last = max((row.name.split(".")[0] for row in found), key=("pretrain", "sft", "dpo").index, default="")
    found = [row for row in found if row.name.startswith(last)]
    return found or [row for row in comparison.result if row.name.startswith(("validation/", "train/loss"))]


def changes(comparison: Comparison) -> str:
    """Say how the result differs, for a column in a list of runs.

    Args:
        comparison: The comparison.

    Returns:
        Such as `bits per byte ↓ 4.2% better`.
    """
    rows = [row for row in headlines(comparison) if ", " not in label(row)]
    return ", ".join(f"{label(row)} {change(row)} {verdict(row)}".strip() for row in rows) or "no result yet"


def in_a_line(comparison: Comparison) -> str:
    """Say what differs in two lines.

    Args:
        comparison: The comparison.

    Returns:
        Markdown: the result's change, then the recipe's and the data's.
    """
    result = [
        f"{label(row)} {number(row.a)} → {number(row.b)} ({f'{change(row)} {verdict(row)}'.strip()})"
        for row in headlines(comparison)
        if ", " not in label(row)
    ]
    kept = [row for row in comparison.data if row.part == "funnel" and row.name == "kept"][-1:]
    rows = [*kept, *(row for row in comparison.data if row.part == "mix" and " of " in row.name)]
    data = [f"{label(row)} {change(row)}" for row in rows if not row.is_same][:_IN_A_LINE]
    files = comparison.files
    if files["only_b_count"] or files["only_a_count"]:
        data.insert(0, f"{files['only_b_count']:,} files new, {files['only_a_count']:,} gone")
    recipe = [f"`{one.key}` {one.a or '–'} → {one.b or '–'}" for one in comparison.recipe[:_IN_A_LINE]]
    more = len(comparison.recipe) - len(recipe)
    told = [*recipe, *([f"{more} more keys"] if more > 0 else [])]
    return (
        f"**Against {comparison.a}**: {', '.join(result) or 'no result yet'}. "
        f"**Recipe**: {', '.join(told) or 'the same'}. **Data**: {', '.join(data) or 'the same'}."
    )


def _is_headline(name: str) -> bool:
    model, _, measure = name.partition(".")
    return model in ("pretrain", "sft", "dpo") and measure.split("/")[0] in HEADLINES and "/source/" not in name


def to_markdown(comparison: Comparison) -> str:
    """Write a comparison as a note for a run's page.

    Args:
        comparison: The comparison.

    Returns:
        Markdown: result, recipe, data, in this order.
    """
    lines = [f"### {comparison.b} against {comparison.a}", ""]
    lines += [f"* {note}" for note in comparison.notes] + [""] * bool(comparison.notes)
    lines += _section("Result", headlines(comparison), with_verdict=True)
    lines += _recipe(comparison)
    lines += _data(comparison)
    if comparison.shared:
        lines += [f"The same artifacts in both: {', '.join(comparison.shared)}.", ""]
    return "\n".join(lines)


def _recipe(comparison: Comparison) -> list[str]:
    changes = comparison.recipe
    if not changes:
        return ["**Recipe**: no key differs.", ""]
    lines = ["**Recipe**", "", "| key | before | now |", "|---|---|---|"]
    lines += [f"| `{one.key}` | {_cell(one.a)} | {_cell(one.b)} |" for one in changes[:_MOST_CHANGES]]
    more = len(changes) - _MOST_CHANGES
    return [*lines, *([f"| and {more} more | | |"] if more > 0 else []), ""]


def _cell(text: str | None) -> str:
    return "–" if text is None else f"`{text.replace('|', '¦').replace('`', '´')}`"


def _data(comparison: Comparison) -> list[str]:
    files = comparison.files
    lines = [
        f"**Data**: {files['b']:,} source files, {files['only_b_count']:,} new, {files['only_a_count']:,} gone",
        "",
    ]
    rows = [row for row in comparison.data if not row.is_same or row.name == "kept"]
    return lines + _section("", rows)


def _section(title: str, rows: Sequence[Row], with_verdict: bool = False) -> list[str]:
    if not rows:
        return [f"**{title}**: nothing to compare yet.", ""] if title else []
    lines = [f"**{title}**", ""] if title else []
    lines += ["| | before | now | change |", "|---|---:|---:|---|"]
    for row in rows[:_MOST_ROWS]:
        told = verdict(row) if with_verdict else ""
        lines.append(f"| {label(row)} | {number(row.a)} | {number(row.b)} | {change(row)} {told} |")
    return [*lines, *([f"| and {len(rows) - _MOST_ROWS} more | | | |"] if len(rows) > _MOST_ROWS else []), ""]


def label(row: Row) -> str:
    """Name a figure for a person.

    Args:
        row: The figure.

    Returns:
        Such as `filter: too_few_words` or `dpo bits per byte, zh`.
    """
    if row.part == "funnel":
        return f"{row.stage}: {row.name}"
    if row.part in ("sources", "languages"):
        return f"bytes of {row.name}"
    if row.part == "mix":
        return f"tokens, {row.name}" if " of " in row.name else row.name.replace("_", " ")
    model, _, measure = row.name.partition(".") if row.part == "held-out" else (row.stage, "", row.name)
    measure = measure.removeprefix("last_").replace("/language/", ", ").replace("/source/", ", source ")
    return f"{model} {measure.replace('_', ' ').replace('/', ' ')}"


def to_columns(comparison: Comparison) -> dict[str, list[Any]]:
    """Write a comparison as one table that MLflow's page shows with filters.

    Args:
        comparison: The comparison.

    Returns:
        Values by column.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("about", "stage", "name", "before", "now", "change", "now is")
    }
    for one in comparison.recipe:
        _add(columns, "recipe", one.key.split(".")[0], one.key, one.a, one.b, "", "")
    for row in [*comparison.result, *comparison.data]:
        about = "result" if row.part in ("training", "held-out") else f"data: {row.part}"
        _add(columns, about, row.stage, row.name, number(row.a), number(row.b), change(row), verdict(row))
    for name, told in (("only_b", "new file"), ("only_a", "file gone")):
        for path in comparison.files[name]:
            _add(columns, "data: files", "ingest", path, "", "", told, "")
    return columns


def _add(columns: dict[str, list[Any]], *values: Any) -> None:
    for name, value in zip(columns, values, strict=True):
        columns[name].append("–" if value is None else value)
