"""Metrics on their way to MLflow: training never waits for the server, and a server that is down loses nothing.

    log(figures, step) ─▶ <folder>/<run id>.jsonl ─▶ thread ─▶ MLflow, in batches
                            (the write-ahead journal)   └─ fails: kept and tried again, now, at close, at the next start

Each point is in MLflow once. The same point sent twice is one in MLflow, for its time is kept in the journal. A resumed
run repeats the steps since its checkpoint: its points at steps that MLflow has already are dropped, metric by metric,
for a resumed run computes the same. After a rollback they are not the same: `rewind` begins a new branch of the curves,
whose points count anew, and notes it in the run's tag `qwen_core.rewinds`: the step that training went back to, the one
that it came from, and when.

`Signals` does this on rank 0:

    metric_log = MetricLog(plan.run, spool_folder(plan.state_uri))   # once in a worker
    metric_log.rewind(guards.rollbacks, step)                        # at a resume, and after each rollback
    metric_log.log(figures, step)                                    # in place of StageRun.log_metrics; 0.1 ms
    metric_log.close()                                               # at the end, also of a failure: waits a minute

What a stage cannot send before its state is deleted goes on to the store, by `leftover.keep_waiting`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException

from qwen_core.tracking.journal import Journal
from qwen_core.tracking.opening import PENDING
from qwen_core.tracking.outbox import is_final
from qwen_core.tracking.rest import MOST_METRICS

if TYPE_CHECKING:
    from qwen_core.tracking.runs import StageRun

REWINDS_TAG = "qwen_core.rewinds"
_LONGEST_NAME = 250
_BAD_CHARACTERS = re.compile(r"[^/\w.\- :]")
_LONGEST_PAUSE_SECONDS = 60.0
logger = logging.getLogger(__name__)


def spool_folder(state_uri: str) -> Path:
    """Choose where points wait that MLflow did not take yet.

    Args:
        state_uri: The stage's folder for checkpoints.

    Returns:
        A folder in it where it is local, so that a new attempt finds it; else one among the temporary files.
    """
    place = tempfile.gettempdir() if "://" in state_uri else state_uri
    return Path(place) / ("qwen_core_spool" if "://" in state_uri else "spool")


class MetricLog:
    """Takes the points of one run; `log`, `put` and `rewind` never raise, never wait, and may come from any thread."""

    def __init__(
        self,
        run: StageRun,
        folder: Path | str,
        *,
        interval_seconds: float = 1.0,
        max_bytes: int = 256 * 2**20,
    ) -> None:
        """Start sending; points that an earlier attempt left in the folder come first.

        Args:
            run: Where the points go.
            folder: Local; made where missing.
            interval_seconds: Between two requests, and first pause after a failure; it doubles up to a minute.
            max_bytes: Of the journal; beyond it every second waiting point is given up, so that curves stay whole.
        """
        # MLflow's own seven tries would hold the thread for minutes; this one tries again by itself.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        self.run = run
        self.dropped = 0
        """Values that MLflow refused for good, such as those of a deleted run."""
        self._journal = Journal(waiting_file(run, folder), max_bytes)
        self._attempt = time.time_ns()
        self._branch = self._last_ms = 0
        self._highest = -1
        self._interval = interval_seconds
        self._actions: dict[str, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._wake, self._closing, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._sender = _Sender(run, self._attempt)
        self._is_failing = self._is_given_up = False
        self._thread = threading.Thread(target=self._work, name="metric-log", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int, seconds: float | None = None) -> None:
        """Log figures of one step; NaN and infinity are kept, for a diverged run must show it.

        Args:
            metrics: Values by name; signs that MLflow does not allow in a name become `_`.
            step: Optimiser step.
            seconds: When, as Unix time; now by default.
        """
        now = self._now() if seconds is None else int(1000 * seconds)
        values = {_clean(name): float(value) for name, value in metrics.items()}
        self._highest = max(self._highest, step)
        self._append({"step": step, "ms": now, "branch": self._branch, "values": values})

    def rewind(self, number: int, step: int) -> None:
        """Begin the branch of the curves that follows a rollback; where it is known already, only go on in it.

        Args:
            number: Rollbacks so far; 0 is the first branch.
            step: That training went back to.
        """
        self._branch = number
        if number:
            # Points of the old branch are told from those of the new one by their time
            line = {"rewind": number, "step": step, "from": self._highest, "ms": self._now(later=True)}
            self._append(line)

    def put(self, name: str, action: Callable[[], None]) -> None:
        """Have the thread do something with MLflow, such as storing an artifact, until it succeeds.

        Args:
            name: A later action of the same name takes the place of one that waits.
            action: Raises where it did not succeed.
        """
        with self._lock:
            self._actions[name] = action
            self._idle.clear()
        self._wake.set()

    def flush(self, timeout_seconds: float = 60.0) -> bool:
        """Wait until everything is sent.

        Args:
            timeout_seconds: At most.

        Returns:
            Whether it is.
        """
        self._wake.set()
        return self._idle.wait(timeout_seconds)

    def close(self, timeout_seconds: float = 60.0) -> bool:
        """Send the rest and stop; what cannot be sent stays in the folder for the next attempt.

        Args:
            timeout_seconds: Waits at most so long.

        Returns:
            Whether everything was sent.
        """
        self._closing.set()
        is_sent = self.flush(timeout_seconds)
        self._wake.set()
        if is_sent:
            self._thread.join(timeout_seconds)
            self._journal.remove()
        else:
            self._is_given_up = True
            # not its address, which may hold a password
            logger.warning("MLflow does not answer: metrics of run %s wait in %s", self.run.run_id, self._journal.path)
        return is_sent

    def _now(self, later: bool = False) -> int:
        """Read the clock in ms, never earlier than the last time, and `later` than it where asked."""
        self._last_ms = max(int(1000 * time.time()), self._last_ms + later)
        return self._last_ms

    def _append(self, line: dict[str, Any]) -> None:
        self._journal.append(line | {"attempt": self._attempt})
        with self._lock:
            self._idle.clear()
        self._wake.set()

    def _work(self) -> None:
        pause = self._interval
        while True:
            self._wake.wait(None if self._journal.is_empty and not self._actions else pause)
            self._wake.clear()
            try:
                self._send_all()
            except Exception as error:  # whatever the network or the server answers: training goes on
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                self._tell(error)
                self._closing.wait(pause)
                if self._is_given_up:
                    return
                if self._closing.is_set():
                    time.sleep(min(pause, self._interval))  # close() waits, but not for a minute's pause
                self._wake.set()
                continue
            pause = self._interval
            self._tell(None)
            if self._closing.is_set():
                if self._idle.is_set():
                    return
                continue  # an action has logged something
            self._closing.wait(pause)  # gathers a batch

    def _send_all(self) -> None:
        while lines := self._journal.read(MOST_METRICS):
            self.dropped += self._sender.send(lines.values)
            self._journal.advance(lines)
            if lines.is_rest and not self._closing.is_set():
                break  # what came meanwhile goes with the next batch: a fast writer must not mean a request a line
        with self._lock:
            actions = dict(self._actions)
        for name, action in actions.items():
            _do(name, action)
            with self._lock:
                if self._actions.get(name) is action:
                    del self._actions[name]
        with self._lock:
            if self._journal.is_empty and not self._actions:
                self._idle.set()

    def _tell(self, error: Exception | None) -> None:
        """Log when trouble begins and when it ends, not at each try."""
        if (error is not None) == self._is_failing:
            return
        self._is_failing = error is not None
        if error is None:
            logger.warning("MLflow answers again: the metrics that waited are sent")
        else:
            text = str(error).partition("\n")[0][:300]
            logger.warning("MLflow takes no metrics (%s: %s); they wait in a file", type(error).__name__, text)


def waiting_file(run: StageRun, folder: Path | str, suffix: str = ".jsonl") -> Path:
    """Name the file in which a run's points, or events, wait.

    Args:
        run: The run; where MLflow did not know it at the last attempt, its file has another name and is taken.
        folder: Local.
        suffix: `.jsonl` of points.

    Returns:
        The file, which need not exist.
    """
    path = Path(folder) / f"{run.run_id}{suffix}"
    earlier = Path(folder) / f"{run.key}{suffix}"
    if path != earlier and earlier.exists() and not path.exists():
        earlier.rename(path)
    return path


class _Sender:
    """Decides which points are new and sends them; lives in the thread."""

    def __init__(self, run: StageRun, attempt: int) -> None:
        self._run, self._attempt = run, attempt
        self._client: Any = None
        self._known: dict[str, int] = {}
        self._rewinds: list[dict[str, int]] = []

    def send(self, lines: Sequence[dict[str, Any]]) -> int:
        """Send what is new; return how many values were refused for good."""
        if self._client is None:
            client = self._run.client
            self._rewinds, self._known = _what_is_known(client, self._run.resolve())
            self._client = client
        metrics: list[Metric] = []
        refused = 0
        for line in lines:
            if "rewind" in line:
                refused += self._log(metrics)
                metrics = []
                self._rewind(line)
            elif not self._was_left(line):
                metrics += self._new_points(line)
        return refused + self._log(metrics)

    def _was_left(self, line: dict[str, Any]) -> bool:
        """Whether an earlier attempt went through this point of an old branch before it went back.

        Beyond where it went back, this attempt is on a course of its own: not every device repeats a rollback exactly.
        """
        branch = line["branch"]
        return branch < len(self._rewinds) and bool(line["step"] <= self._rewinds[branch]["from"])

    def _new_points(self, line: dict[str, Any]) -> list[Metric]:
        step, points = line["step"], []
        is_leftover = line["attempt"] != self._attempt
        # Points are told from those before the last rollback by their time, also where this machine's clock is behind
        ms = max(line["ms"], self._rewinds[-1]["ms"] if self._rewinds else 0)
        for name, value in line["values"].items():
            if step <= self._known.get(name, -1):
                continue
            points.append(Metric(name, value, ms, step))
            if is_leftover:
                self._known[name] = step
        return points

    def _rewind(self, line: dict[str, Any]) -> None:
        if line["rewind"] <= len(self._rewinds):
            return
        rewinds = [*self._rewinds, {name: line[name] for name in ("step", "from", "ms")}]
        self._client.log_batch(self._run.resolve(), tags=[RunTag(REWINDS_TAG, json.dumps(rewinds))])
        self._rewinds, self._known = rewinds, {}

    def _log(self, metrics: Sequence[Metric]) -> int:
        refused = 0
        for start in range(0, len(metrics), MOST_METRICS):
            refused += self._log_batch(metrics[start : start + MOST_METRICS])
        return refused

    def _log_batch(self, metrics: Sequence[Metric]) -> int:
        """Send a request; where MLflow refuses it for good, find the points that it refuses by halving."""
        try:
            self._client.log_batch(self._run.resolve(), metrics=list(metrics))
        except MlflowException as error:
            if not is_final(error):
                raise
            if len(metrics) > 1 and error.error_code != "RESOURCE_DOES_NOT_EXIST":
                middle = len(metrics) // 2
                return self._log_batch(metrics[:middle]) + self._log_batch(metrics[middle:])
            logger.warning("MLflow refuses %s: %s", metrics[0].key, str(error)[:300])
            return len(metrics)
        return 0


def _what_is_known(client: Any, run_id: str) -> tuple[list[dict[str, int]], dict[str, int]]:
    """Ask MLflow for the rollbacks so far, and for the highest step of each metric since the last of them."""
    data = client.get_run(run_id).data
    rewinds = json.loads(data.tags.get(REWINDS_TAG, "[]"))
    since = rewinds[-1]["ms"] if rewinds else 0
    known = {}
    for latest in data._metric_objs:
        if latest.timestamp >= since:
            known[latest.key] = int(latest.step)
            continue
        # The highest step is one of before the rollback, and may hide lower ones of after it
        steps = [point.step for point in client.get_metric_history(run_id, latest.key) if point.timestamp >= since]
        if steps:
            known[latest.key] = int(max(steps))
    return rewinds, known


def _do(name: str, action: Callable[[], None]) -> None:
    try:
        action()
    except MlflowException as error:
        if not is_final(error) or PENDING in str(error):  # the run gets its id when MLflow answers again
            raise
        logger.warning("MLflow refuses %s: %s", name, str(error)[:300])


def _clean(name: str) -> str:
    """Make a metric's name one that MLflow takes."""
    parts = [part for part in _BAD_CHARACTERS.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:_LONGEST_NAME] or "_"
