"""Histories that lie in files: ours, and those of transformers' Trainer and LLaMA-Factory.

history.jsonl        ours: an object for each event, `step` and metrics
trainer_state.json   transformers: the same objects as a list `log_history`, settings beside it
trainer_log.jsonl    LLaMA-Factory: an object for each event, the step under `current_steps`
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qwen_core.errors import InputError
from qwen_core.tracking.doctor.record import Curve, Run, make_curve

_STEPS = ("step", "current_steps", "global_step", "iteration", "iter")
_TIMES = ("timestamp", "_timestamp", "time")
_SETTINGS = ("max_steps", "eval_steps", "logging_steps", "save_steps", "num_train_epochs", "train_batch_size")


def read_file(path: Path) -> Run:
    """Read a history.

    Args:
        path: The file.

    Returns:
        The run.

    Raises:
        InputError: The file holds no events with figures; the first faulty line is named.
    """
    events, params = _events(path)
    curves = _curves(events)
    if not curves:
        raise InputError(
            f"{path} holds no figures: expected one JSON object for each event, such as "
            f'{{"step": 10, "train/loss": 8.1}}, or a trainer_state.json with log_history'
        )
    return Run(str(path), path.absolute().parent.name, str(path), params=params, curves=curves)


def _events(path: Path) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(f"{path} cannot be read: {fault}. Give a history in JSON, encoded as UTF-8") from fault
    if path.suffix == ".json":
        whole = _parse(text, str(path))
        events = whole.get("log_history") if isinstance(whole, dict) else whole
        params = {name: str(whole[name]) for name in _SETTINGS if name in whole} if isinstance(whole, dict) else {}
        if params:
            params.setdefault("per_device_train_batch_size", params.pop("train_batch_size", ""))
        return [event for event in events or [] if isinstance(event, dict)], params
    lines = text.splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == len(lines) and not text.endswith("\n") and not line.rstrip().endswith("}"):
            break  # the writer is still at it, or was killed
        rows.append(_parse(line, f"{path}, line {number}"))
    return [row for row in rows if isinstance(row, dict)], {}


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as fault:
        raise InputError(f"{place} is no JSON ({fault}): give a history with one object for each event") from fault


def _curves(events: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    points: dict[str, list[tuple[float, float, float]]] = {}
    for place, event in enumerate(events):
        step = next((float(event[name]) for name in _STEPS if _is_number(event.get(name))), float(place))
        when = next((float(event[name]) for name in _TIMES if _is_number(event.get(name))), math.nan)
        for name, value in event.items():
            if name not in (*_STEPS, *_TIMES) and _is_number(value):
                points.setdefault(name, []).append((step, float(value), when))
    return {name: make_curve(name, found) for name, found in points.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
