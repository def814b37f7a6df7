"""All that a run tells to the outside, put together for one worker: metrics, events, alerts, watch, profiles.

    loop ─▶ log, events.emit, rewind, around ─▶ rank 0: MetricLog, EventTable, Alerts, Watch, Profiler
                                             └▶ others: Watch alone

For the worker, once the engine (and with it the process group) is up:

    signals = Signals(plan.stage, plan.settings.guards, meter, run=plan.run, state_uri=plan.state_uri,
                      alerts=plan.alerts, rank=rank(), world_size=world_size())
    with signals:
        signals.rewind(guards.rollbacks, step)        # after a resume and after each rollback
        with signals.around(step):                    # around engine.step: takes the profiles
            result = engine.step(...)
        signals.log(figures, step)                    # on every worker
        signals.events.emit(event)                    # on every worker
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from qwen_core.artifacts import upload
from qwen_core.config.guards import Guards as GuardSettings
from qwen_core.tracking.folder import FolderRun
from qwen_core.train.alerts import AlertPlan, Alerts
from qwen_core.train.events import Event, EventLog
from qwen_core.train.meter import Meter
from qwen_core.train.profile import Profiler, listen_to_signal, request_file
from qwen_core.train.watch import Board, Watch, make_board

if TYPE_CHECKING:
    from qwen_core.tracking.events import EventTable
    from qwen_core.tracking.runs import StageRun
    from qwen_core.tracking.spool import MetricLog

_CLOSE_SECONDS = 60.0
_BEFORE_EXIT_SECONDS = 10.0


class Signals:
    """What one worker tells; only rank 0 tells anybody."""

    def __init__(
        self,
        stage: str,
        settings: GuardSettings,
        meter: Meter,
        *,
        run: StageRun | FolderRun | None,
        state_uri: str,
        alerts: AlertPlan | None = None,
        rank: int = 0,
        world_size: int = 1,
        board: Board | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            stage: The stage's word.
            settings: The stage's `guards`.
            meter: Of this worker.
            run: The stage's MLflow run; without one, or with one that is a folder, nothing goes to MLflow.
            state_uri: The stage's folder for checkpoints: metrics wait there, and a file there asks for a profile.
            alerts: Where alerts go.
            rank: Of this worker.
            world_size: Number of workers.
            board: In place of the store's.
        """
        self._is_first, self._meter = rank == 0, meter
        self.events = EventLog(stage, is_silent=not self._is_first)
        self._run = None if run is None or isinstance(run, FolderRun) or not run.run_id else run
        self._state_uri, self._settings, self._stage = state_uri, settings, stage
        self._metric_log: MetricLog | None = None
        self._alerts: Alerts | None = None
        self._profiler: Profiler | None = None
        listen_to_signal()
        if self._is_first:
            self._connect(alerts)
        self._watch = Watch(
            settings,
            meter,
            make_board(world_size) if board is None else board,
            rank=rank,
            world_size=world_size,
            emit=self.events.emit,
            before_exit=lambda: self._close(_BEFORE_EXIT_SECONDS),
        )

    def _connect(self, plan: AlertPlan | None) -> None:
        """Connect rank 0 with those who listen."""
        if self._run is not None:
            # MLflow takes seconds to import, which the other workers need not wait for
            from qwen_core.tracking.events import EventTable
            from qwen_core.tracking.spool import MetricLog, spool_folder

            folder = spool_folder(self._state_uri)
            self._metric_log = MetricLog(self._run, folder)
            self.events.add(_to(EventTable(self._run, self._metric_log, folder)))
        if plan is not None:
            self._alerts = Alerts(
                plan, self._stage, "no run" if self._run is None else f"MLflow run {self._run.run_id}"
            )
            self.events.add(self._alerts)
        self._profiler = Profiler(self._settings.profile_steps, request_file(self._state_uri), self._keep_profile)

    def __enter__(self) -> Signals:
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        if self._profiler is not None:
            self._profiler.close()
        self._close(_CLOSE_SECONDS)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log figures of one step.

        Args:
            figures: Values by name.
            step: Optimiser steps done.
        """
        if not self._is_first:
            return
        if self._metric_log is not None:
            self._metric_log.log(figures, step)
        if "train/epochs" in figures:
            self._watch.point(step, figures)

    def rewind(self, number: int, step: int) -> None:
        """Tell that the curves go on from a step; see `MetricLog.rewind`.

        Args:
            number: Rollbacks so far.
            step: That training goes on from.
        """
        if self._metric_log is not None:
            self._metric_log.rewind(number, step)

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Record a step where a profile of it is wanted.

        Args:
            step: Optimiser step, from 0.

        Yields:
            Nothing.
        """
        if self._profiler is None:
            yield
            return
        self._profiler.before(step)
        yield
        self._profiler.after(step)

    def _keep_profile(self, files: Mapping[str, Path], first: int) -> None:
        """Store a profile as artifacts of the run; without a run, beside the checkpoints."""
        if self._run is None or self._metric_log is None:
            place = f"{self._state_uri}/profiles/step_{first}"
            upload(str(next(iter(files.values())).parent), place)
            self.events.emit(Event("profile", first, f"steps from {first} on are profiled in {place}", "info"))
            return
        contents = {name: path.read_bytes() for name, path in files.items()}
        self._metric_log.put(f"profile {first}", _upload(self._run, contents, f"profiles/step_{first}"))
        text = f"steps from {first} on are profiled: artifacts profiles/step_{first} of the MLflow run"
        self.events.emit(Event("profile", first, text, "info"))

    def _close(self, seconds: float) -> None:
        if self._alerts is not None:
            self._alerts.close(seconds / 2)
            self._alerts = None
        if self._metric_log is not None:
            self._metric_log.close(seconds)
            self._metric_log = None


def _to(table: EventTable) -> Callable[[Event], None]:
    return lambda event: table.record(event.to_json())


def _upload(run: StageRun, contents: Mapping[str, bytes], place: str) -> Callable[[], None]:
    """Return what uploads files, from copies: the originals are gone before MLflow may answer."""

    def upload() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in contents.items():
                (Path(folder) / name).write_bytes(content)
            run.client.log_artifacts(run.run_id, folder, place)

    return upload
