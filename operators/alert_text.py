"""What an alert says: made from an Airflow context of any kind, in which anything may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LAST_LINES = 3
_LONGEST_LINE = 300


def title_of(context: Any) -> str:
    """Say in one line what happened.

    Args:
        context: Airflow's, of a task, a DAG run or a missed deadline.

    Returns:
        The line; it holds the word `qwen-core`.
    """
    told = facts_of(context)
    run = f"DAG run {told['run_id']} of {told['dag_id']}" if told["run_id"] else f"DAG {told['dag_id'] or '?'}"
    if told["deadline"]:
        return f"qwen-core: {run} takes longer than it may (due {told['deadline']}); it goes on"
    if told["task_id"]:
        tries = f", try {told['try_number']}" if told["try_number"] else ""
        return f"qwen-core: task {told['task_id']} of {run}: {told['state'] or 'failed'}{tries}"
    return f"qwen-core: {run}: {told['state'] or 'ended'}"


def text_of(context: Any) -> str:
    """Say what happened, why, and where to look.

    Args:
        context: Airflow's.

    Returns:
        Some lines.
    """
    told = facts_of(context)
    return "\n".join(part for part in (title_of(context), told["reason"], told["log_url"]) if part)


def facts_of(context: Any) -> dict[str, str]:
    """Take out of a context what an alert can use.

    Args:
        context: Airflow's.

    Returns:
        `dag_id`, `run_id`, `task_id`, `try_number`, `state`, `deadline`, `reason`, `log_url`; empty where unknown.
    """
    context = context or {}
    run, task = context.get("dag_run"), context.get("ti") or context.get("task_instance")
    deadline = context.get("deadline")
    state = _of(task, "state") if task is not None else _of(run, "state")
    return {
        "dag_id": next(filter(None, (_of(thing, "dag_id") for thing in (run, task, context.get("dag"), context))), ""),
        "run_id": _of(run, "run_id") or _of(run, "dag_run_id") or _of(task, "run_id"),
        "task_id": _of(task, "task_id"),
        "try_number": _of(task, "try_number"),
        "state": state,
        "deadline": _of(deadline, "deadline_time") if deadline else "",
        "reason": _reason(context),
        "log_url": _of(task, "log_url"),
    }


def _reason(context: Mapping[str, Any]) -> str:
    """Take the error's last lines: a job's last words are there."""
    error = context.get("exception")
    text = str(error) if error else str(context.get("reason") or "")
    lines = [line.strip()[:_LONGEST_LINE] for line in text.splitlines() if line.strip()]
    return _redacted("\n".join(lines[-_LAST_LINES:]))


def _redacted(text: str) -> str:
    """Cover what Airflow knows to be secret."""
    from airflow.sdk._shared.secrets_masker import redact

    return str(redact(text))


def _of(thing: Any, name: str) -> str:
    """Read a field of an object or a mapping as text."""
    value = thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
    return "" if value is None else str(getattr(value, "value", value))
