"""What waits for MLflow on this machine when a stage ends goes on to the store, where the next stage finds it.

state folder: <run>.jsonl, <run>.events.jsonl ─▶ keep_waiting ─▶ outbox ─▶ send_points ─▶ MLflow
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_core.tracking.events import EventTable
from qwen_core.tracking.journal import Journal
from qwen_core.tracking.outbox import Write
from qwen_core.tracking.spool import MetricLog, waiting_file

if TYPE_CHECKING:
    from qwen_core.tracking.runs import StageRun

_EVENTS = ".events.jsonl"
_CHUNK_CHARS = 2_000_000  # of a journal, in one file of the outbox


def keep_waiting(run: StageRun, folder: Path | str) -> int:
    """Move what waits for MLflow in a local folder, which is about to be deleted, to the store.

    Args:
        run: Of a stage; whoever sends the store's records sends these too.
        folder: As it was given to `MetricLog`, which is closed.

    Returns:
        Lines that were moved.
    """
    count = 0
    for suffix in (".jsonl", _EVENTS):
        path = waiting_file(run, folder, suffix)
        if not path.exists():
            continue
        journal = Journal(path, 2**62)
        lines = journal.read(2**62).values
        for chunk in _chunks([json.dumps(line, ensure_ascii=False) + "\n" for line in lines]):
            run.keep({"kind": "points", "suffix": suffix, "content": chunk})
        journal.remove()
        count += len(lines)
    return count


def _chunks(lines: Sequence[str]) -> list[str]:
    chunks = [""]
    for line in lines:
        if len(chunks[-1]) + len(line) > _CHUNK_CHARS:
            chunks.append("")
        chunks[-1] += line
    return [chunk for chunk in chunks if chunk]


@dataclass(frozen=True)
class _KnownRun:
    """As much of a `StageRun` as a log needs."""

    run_id: str
    client: Any

    @property
    def key(self) -> str:
        return self.run_id

    def resolve(self) -> str:
        return self.run_id


def send_points(client: Any, run_id: str, write: Write) -> None:
    """Send what `keep_waiting` moved.

    Args:
        client: Of the server.
        run_id: The run.
        write: A file's content.

    Raises:
        ConnectionError: MLflow does not take it.
    """
    run: Any = _KnownRun(run_id, client)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{run_id}{write['suffix']}").write_text(write["content"], encoding="utf-8")
        log = MetricLog(run, folder, interval_seconds=0.1)
        if write["suffix"] == _EVENTS:
            EventTable(run, log, folder)
        if not log.close():
            raise ConnectionError("MLflow does not answer")
