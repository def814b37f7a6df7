"""What happened in training that a person should know of, and who is told.

    guards, watch, profiler ─▶ Event ─▶ EventLog ─┬─▶ one line in the job's log
                                                  ├─▶ MLflow (qwen_core.tracking.events, handed in as a sink)
                                                  └─▶ webhook or command (qwen_core.train.alerts, handed in as a sink)

For the loop: one `EventLog` on each worker; rank 0's has sinks, the others' are silent; `Signals` makes it.
`events.emit(event)` never raises and never waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

logger = logging.getLogger(__name__)

Severity = Literal["info", "warning", "error"]

KINDS = {
    "loss_spike": "a loss far above the median of the steps before",
    "loss_not_finite": "a loss that is NaN or infinite",
    "grad_norm_outlier": "a gradient norm far above its median, or infinite",
    "loss_scale_collapsed": "fp16 overflows although the loss scale is small already",
    "rollback": "training went back to a checkpoint and passes over data",
    "diverged": "training gave up",
    "stalled_step": "a step takes much longer than the others",
    "silent_rank": "a worker has not been heard of",
    "aborted": "a worker that stalled too long was ended",
    "memory_near_limit": "memory of a device or of a machine is nearly full",
    "throughput_drop": "tokens per second fell far below the run's median",
    "data_exhausted": "the data are read more often than the recipe allows",
    "profile": "a profile was taken",
}
"""Every kind of event, and what it means."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: A word of `KINDS`.
        step: Optimiser step that was under way, from 0.
        message: One line: what happened, with the values.
        severity: `info` is only logged; `warning` and `error` are also sent as alerts.
        details: Plain JSON, such as the ids of the documents of a dropped batch.
        seconds: When, as Unix time.
    """

    kind: str
    step: int
    message: str
    severity: Severity = "warning"
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = field(default_factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """Turn into plain JSON."""
        return asdict(self)


class EventLog:
    """Takes events of one worker and hands them to all who want them; may be called from any thread."""

    def __init__(self, stage: str, sinks: Sequence[Callable[[Event], None]] = (), *, is_silent: bool = False) -> None:
        """Start empty.

        Args:
            stage: The stage's word, for the log line.
            sinks: Called with each event, in order; one that raises is told of in the log and called again next time.
            is_silent: Only count; for workers other than rank 0, which see the same.
        """
        self.counts: Counter[str] = Counter()
        self._is_silent = is_silent
        self._stage, self._sinks, self._lock = stage, list(sinks), threading.Lock()

    def add(self, sink: Callable[[Event], None]) -> None:
        """Let one more listen.

        Args:
            sink: Called with each event.
        """
        self._sinks.append(sink)

    def emit(self, event: Event) -> None:
        """Tell of an event.

        Args:
            event: What happened.
        """
        with self._lock:
            self.counts[event.kind] += 1
            if self._is_silent:
                return
            print(f"[{self._stage}] {event.severity}: {event.kind} at step {event.step}: {event.message}", flush=True)
            for sink in self._sinks:
                try:
                    sink(event)
                except Exception:
                    # Whoever listens must not stop a training of weeks.
                    logger.exception("event %s at step %d was not passed on", event.kind, event.step)

    def emit_all(self, events: Iterable[Event]) -> None:
        """Tell of several events, in order.

        Args:
            events: What happened.
        """
        for event in events:
            self.emit(event)
