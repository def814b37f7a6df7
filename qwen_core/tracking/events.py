"""Events of a training run in MLflow: a counter for each kind by step, a table of all, and the last one as a tag.

event ─▶ <folder>/<run id>.events.jsonl ─▶ the metric log's thread ─▶ events/<kind>, tables/events.json, last_event
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from qwen_core.tracking.spool import waiting_file
from qwen_core.tracking.tables import store_table, table_text

if TYPE_CHECKING:
    from qwen_core.tracking.runs import StageRun
    from qwen_core.tracking.spool import MetricLog

LAST_EVENT_TAG = "qwen_core.last_event"
TABLE = "events"
COLUMNS = ("time", "step", "severity", "kind", "message", "details")
_MOST_ROWS = 2000  # the oldest go first
_TAG_CHARS = 500
logger = logging.getLogger(__name__)


class EventTable:
    """Brings events to MLflow; an event that a resumed run repeats is in it once."""

    def __init__(self, run: StageRun, metric_log: MetricLog, folder: Path | str) -> None:
        """Take up what an earlier attempt left.

        Args:
            run: Where the events go.
            metric_log: Of the same run; its thread does the work.
            folder: Local; events wait in it until MLflow has taken them.
        """
        self._run, self._metric_log = run, metric_log
        self._path = waiting_file(run, folder, ".events.jsonl")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._waiting = _read_lines(self._path)
        self._left = {_key(event) for event in self._waiting}
        self._earlier: set[tuple[Any, ...]] | None = None
        self._rows: list[list[Any]] = []
        self._counts: Counter[str] = Counter()
        if self._waiting:
            metric_log.put(TABLE, self._send)

    def record(self, event: Mapping[str, Any]) -> None:
        """Take an event; never waits for MLflow.

        Args:
            event: `kind`, `step`, `severity`, `message`, `details` and `seconds`, as plain JSON.
        """
        if _key(event) in self._left:
            return
        with self._lock:
            self._waiting.append(dict(event))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._metric_log.put(TABLE, self._send)

    def _send(self) -> None:
        """Store the table with the events that wait; raises where MLflow does not answer."""
        client, run_id = self._run.client, self._run.resolve()
        if self._earlier is None:
            self._take_up(self._stored_rows())
        with self._lock:
            waiting = list(self._waiting)
        rows = list(self._rows)
        new = [event for event in waiting if _key(event) not in (self._earlier or ())]
        rows += [_row(event) for event in new]
        if new:
            columns = {name: [row[place] for row in rows[-_MOST_ROWS:]] for place, name in enumerate(COLUMNS)}
            store_table(client, run_id, table_text(columns), f"tables/{TABLE}.json")
            last = new[-1]
            text = f"{last['kind']} at step {last['step']}: {last['message']}"
            client.set_tag(run_id, LAST_EVENT_TAG, text[:_TAG_CHARS])
        for event in new:
            name = f"events/{event['kind']}"
            self._counts[name] += 1
            self._metric_log.log({name: self._counts[name]}, event["step"], event["seconds"])
        with self._lock:
            self._rows = rows[-_MOST_ROWS:]
            del self._waiting[: len(waiting)]
            lines = [json.dumps(event, ensure_ascii=False) + "\n" for event in self._waiting]
            self._path.write_text("".join(lines), encoding="utf-8")
            if not lines:
                self._path.unlink()

    def _take_up(self, stored: list[list[Any]]) -> None:
        self._rows = stored
        self._counts = Counter(f"events/{row[COLUMNS.index('kind')]}" for row in stored)
        places = [COLUMNS.index(name) for name in ("kind", "step", "message")]
        self._earlier = {tuple(row[place] for place in places) for row in stored}

    def _stored_rows(self) -> list[list[Any]]:
        """Read the table of earlier attempts."""
        client, run_id, path = self._run.client, self._run.resolve(), f"tables/{TABLE}.json"
        if path not in [one.path for one in client.list_artifacts(run_id, "tables")]:
            return []
        with TemporaryDirectory() as folder:
            try:
                text = Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8")
                table = json.loads(text)
            except (MlflowException, ValueError) as error:
                logger.warning("the table of earlier events cannot be read: %s", error)
                return []
        return list(table["data"]) if table.get("columns") == list(COLUMNS) else []


def _row(event: Mapping[str, Any]) -> list[Any]:
    details = json.dumps(event["details"], ensure_ascii=False)
    return [event["seconds"], event["step"], event["severity"], event["kind"], event["message"], details]


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return event["kind"], event["step"], event["message"]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # torn by a kill
    return events
