"""Watching a run from beside it: a thread in each worker, which the loop never waits for.

    Meter (what this worker does, since when) ─▶ Watch ─▶ heartbeat on the board ─▶ rank 0's Watch ─▶ events
                                                   └─▶ a step that stalls: all threads' stacks into this worker's log;
                                                       much later the process ends, and Ray Train starts the run anew

Every worker looks at itself; rank 0 looks at all of them and is the only one that tells of events. The board is
torch.distributed's own store, through a connection of its own; a run of one process has a dictionary.

A worker that hangs inside a call that never lets Python run is ended by faulthandler, which needs no Python.

For the loop:

    board = make_board(world_size)                            # after the process group is up
    watch = Watch(settings.guards, meter, board, rank=rank(), world_size=world_size(), emit=events.emit,
                  before_exit=close_sinks)
    with watch:
        ...                                                   # steps; nothing to call
        watch.point(step, figures)                            # at log points, on rank 0, with the meter's figures
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import statistics
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import torch.distributed as dist

from qwen_core.config.guards import Guards as GuardSettings
from qwen_core.train.events import Event
from qwen_core.train.meter import PAUSES, Meter, memory_used_ratios

EXIT_STALLED = 75  # EX_TEMPFAIL of sysexits.h: try again
_PAUSE_PATIENCE = 4.0  # validation, checkpoints and the first step, which may compile, may take longer than a step
_LEAST_STEPS = 3  # before a median says anything
_SILENT_HEARTBEATS = 6
_SILENT_SECONDS = 30.0
_STACK_CHARS = 16_000
_REARM_SECONDS = 60.0  # the process is ended from outside Python so much later than from inside
_REARMED_AT = 0.05  # below the limit by this share, a memory may be told of again
_AFTER_FIRST_SECONDS = 20.0
_LEAST_SPEEDS = 10
_SLOW_POINTS = 3
logger = logging.getLogger(__name__)


class Board(Protocol):
    """Where workers write what they do, and read what others do."""

    def put(self, rank: int, text: str) -> None:
        """Write one worker's text in place of its last one."""
        ...

    def read(self) -> list[str | None]:
        """Read all workers' texts; `None` for one that wrote nothing yet."""
        ...


class LocalBoard:
    """A board within one process."""

    def __init__(self, world_size: int) -> None:
        """Start empty.

        Args:
            world_size: Number of workers.
        """
        self._texts: list[str | None] = [None] * world_size

    def put(self, rank: int, text: str) -> None:
        """Write; see `Board`."""
        self._texts[rank] = text

    def read(self) -> list[str | None]:
        """Read; see `Board`."""
        return list(self._texts)


class StoreBoard:
    """A board in torch.distributed's store."""

    def __init__(self, store: Any, world_size: int) -> None:
        """Take a connection that nobody else uses.

        Args:
            store: torch's `Store`; a call that blocks in another thread's connection would block this one too.
            world_size: Number of workers.
        """
        self._store = store
        self._keys = [f"qwen_core/heartbeat/{rank}" for rank in range(world_size)]
        self._is_complete = False

    def put(self, rank: int, text: str) -> None:
        """Write; see `Board`."""
        self._store.set(self._keys[rank], text)

    def read(self) -> list[str | None]:
        """Read; see `Board`."""
        # Asking for a key that is not there yet would wait for it
        self._is_complete = self._is_complete or self._store.check(self._keys)
        if self._is_complete:
            return [text.decode() for text in self._store.multi_get(self._keys)]
        return [self._store.get(key).decode() if self._store.check([key]) else None for key in self._keys]


def make_board(world_size: int) -> Board:
    """Open the board of this run; call it on every worker once the process group is up.

    Args:
        world_size: Number of workers.

    Returns:
        The board.
    """
    if world_size == 1 or not dist.is_initialized():
        return LocalBoard(world_size)
    store: Any = dist.distributed_c10d._get_default_store()
    return StoreBoard(store.clone(), world_size)


class Watch:
    """Looks at this worker, and on rank 0 at all of them, every few seconds; see the module."""

    def __init__(
        self,
        settings: GuardSettings,
        meter: Meter,
        board: Board,
        *,
        rank: int,
        world_size: int,
        emit: Callable[[Event], None],
        before_exit: Callable[[], None] = lambda: None,
        memory: Callable[[int | None], Mapping[str, float]] = memory_used_ratios,
        exit_process: Callable[[int], Any] = os._exit,
    ) -> None:
        """Prepare; `with` starts and stops the thread.

        Args:
            settings: Limits.
            meter: Of this worker.
            board: See `make_board`.
            rank: Of this worker.
            world_size: Number of workers.
            emit: Takes events.
            before_exit: Called before a stalled process is ended, to pass on what is to be told; must not wait long.
            memory: How full memories are, 0 to 1 by name; gets the number of this worker's GPU.
            exit_process: Ends the process.
        """
        self._settings, self._meter, self._board = settings, meter, board
        self._rank, self._world_size = rank, world_size
        self._emit, self._before_exit, self._memory, self._exit = emit, before_exit, memory, exit_process
        self._count = 0
        self._told_stall: float | None = None
        self._heard: list[tuple[str | None, float]] = [(None, meter.clock())] * world_size
        self._silent: set[int] = set()
        self._full: set[tuple[int, str]] = set()
        self._speeds: deque[float] = deque(maxlen=100)
        self._slow = 0
        self._epochs: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._arm()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(2 * self._settings.heartbeat_seconds)
        faulthandler.cancel_dump_traceback_later()

    def look(self) -> None:
        """Look once; the thread does it every `heartbeat_seconds`."""
        meter, now = self._meter, self._meter.clock()
        waited = now - meter.progress_at
        self._count += 1
        beat = {
            "count": self._count,
            "step": meter.next_step,
            "phase": meter.phase,
            "memory": dict(self._memory(meter.gpu)),
        }
        self._board.put(self._rank, json.dumps(beat))
        beats = self._hear(now) if self._rank == 0 else []
        if waited > self._patience(self._stall_limit()) and self._told_stall != meter.progress_at:
            self._told_stall = meter.progress_at
            self._tell_stall(waited, beats)
        limit = self._patience(self._settings.abort_seconds)
        # Rank 0 goes first, for only it can tell why; the others end with it, or soon after
        if limit and waited > limit + bool(self._rank) * _AFTER_FIRST_SECONDS:
            self._abort(waited)

    def point(self, step: int, figures: Mapping[str, float]) -> None:
        """Judge a point of the log: a speed that stays far below the run's median, data read too often; on rank 0.

        Args:
            step: Optimiser step.
            figures: As `Meter.figures` gave them.
        """
        if "train/tokens_per_second" in figures:
            self._judge_speed(step, figures["train/tokens_per_second"])
        epochs, before, most = figures["train/epochs"], self._epochs, self._settings.max_epochs
        self._epochs = epochs
        if before is not None and before <= most < epochs:
            text = f"the data are read for the {int(epochs) + 1}th time; guards.max_epochs is {most:g}"
            self._emit(Event("data_exhausted", step, text, details={"epochs": epochs}))

    def _judge_speed(self, step: int, speed: float) -> None:
        if len(self._speeds) >= _LEAST_SPEEDS:
            median = statistics.median(self._speeds)
            self._slow = self._slow + 1 if speed < self._settings.throughput_drop_ratio * median else 0
            if self._slow == _SLOW_POINTS:
                text = f"{speed:.0f} tokens per second, the run's median is {median:.0f}"
                self._emit(Event("throughput_drop", step, text, details={"median": median, "now": speed}))
        self._speeds.append(speed)

    def _work(self) -> None:
        while not self._stop.wait(self._settings.heartbeat_seconds):
            self._arm()
            try:
                self.look()
            except Exception as error:  # the store goes away when rank 0 does; Ray Train deals with that
                logger.warning("the watch of rank %d cannot look: %s", self._rank, error)

    def _arm(self) -> None:
        """Have the process ended, without Python, where this thread does not come back in time."""
        limit = self._patience(self._settings.abort_seconds)
        if limit > 0 and sys.__stderr__ is not None:
            left = max(0.0, limit - (self._meter.clock() - self._meter.progress_at)) + _REARM_SECONDS
            faulthandler.dump_traceback_later(left, exit=True, file=sys.__stderr__)

    def _stall_limit(self) -> float:
        seconds = list(self._meter.step_seconds)
        if len(seconds) < _LEAST_STEPS:
            return _PAUSE_PATIENCE * self._settings.stall_seconds
        return max(self._settings.stall_factor * statistics.median(seconds), self._settings.stall_seconds)

    def _patience(self, seconds: float) -> float:
        return seconds * (_PAUSE_PATIENCE if self._meter.phase in PAUSES else 1.0)

    def _hear(self, now: float) -> list[dict[str, Any]]:
        """Read all heartbeats; tell of workers that are silent, and of memories that are nearly full."""
        beats = []
        limit = max(_SILENT_HEARTBEATS * self._settings.heartbeat_seconds, _SILENT_SECONDS)
        for rank, text in enumerate(self._board.read()):
            before, since = self._heard[rank]
            beat = json.loads(text) if text else {}
            if text != before:  # clocks of machines differ: only whether it changed counts
                self._heard[rank] = text, now
                self._silent.discard(rank)
            elif now - since > limit and rank not in self._silent:
                self._silent.add(rank)
                self._tell_silent(rank, beat, now - since)
            beats.append(beat)
            for name, ratio in beat.get("memory", {}).items():
                self._judge_memory(rank, name, ratio)
        return beats

    def _tell_silent(self, rank: int, last: Mapping[str, Any], seconds: float) -> None:
        place = f"in {last['phase']} of step {last['step']}" if last else "before its first heartbeat"
        message = f"rank {rank} was not heard of for {seconds:.0f} s; last {place}"
        self._emit(Event("silent_rank", self._meter.next_step, message, "error", {"rank": rank, "last": last}))

    def _judge_memory(self, rank: int, name: str, ratio: float) -> None:
        limit, key = self._settings.memory_limit_ratio, (rank, name)
        if ratio < limit - _REARMED_AT:
            self._full.discard(key)
        if ratio >= limit and key not in self._full:
            self._full.add(key)
            text = f"memory ({name}) of rank {rank} is {ratio:.0%} full; guards.memory_limit_ratio is {limit:.0%}"
            details = {"rank": rank, "memory": name, "ratio": ratio}
            self._emit(Event("memory_near_limit", self._meter.next_step, text, details=details))

    def _tell_stall(self, waited: float, beats: Sequence[Mapping[str, Any]]) -> None:
        stacks = all_stacks()
        print(f"rank {self._rank} stalls in {self._meter.phase} of step {self._meter.next_step}:\n{stacks}", flush=True)
        if self._rank:
            return
        typical = f"median {statistics.median(self._meter.step_seconds):.1f} s" if self._meter.step_seconds else "first"
        where = laggards(beats)
        text = f"{self._meter.phase} has taken {waited:.0f} s ({typical}); {where}"
        details = {"seconds": waited, "ranks": [dict(beat) for beat in beats], "stacks": stacks[-_STACK_CHARS:]}
        self._emit(Event("stalled_step", self._meter.next_step, text, "error", details))

    def _abort(self, waited: float) -> None:
        text = (
            f"rank {self._rank} has been in {self._meter.phase} for {waited:.0f} s (guards.abort_seconds="
            f"{self._settings.abort_seconds:g}): its process ends, training starts anew from the last checkpoint"
        )
        if self._rank:
            print(text, flush=True)
        self._emit(Event("aborted", self._meter.next_step, text, "error", {"rank": self._rank}))
        try:
            self._before_exit()
        finally:
            self._exit(EXIT_STALLED)


def laggards(beats: Sequence[Mapping[str, Any]]) -> str:
    """Say which workers the others wait for, from what each was doing last.

    Args:
        beats: `step` and `phase` of each worker, by rank; empty for one that was not heard of.

    Returns:
        A phrase for a person.
    """
    places = [(beat["step"], beat["phase"]) if beat else None for beat in beats]
    if not places or len(set(places)) == 1:
        return "all workers are at the same place"
    # Of two places that are as common, the others are those who got further: who is in a step waits there for the rest
    commonest = max(places, key=lambda place: (places.count(place), *_progress(place)))
    others = [(rank, place) for rank, place in enumerate(places) if place != commonest][:8]
    told = [f"rank {rank} is {_where(place)}" for rank, place in others]
    return f"{', '.join(told)}; the others are {_where(commonest)}"


def _where(place: tuple[int, str] | None) -> str:
    return "not heard of" if place is None else f"in {place[1]} of step {place[0]}"


def _progress(place: tuple[int, str] | None) -> tuple[int, bool, str]:
    """Order places by how far a worker has come."""
    return (-1, False, "") if place is None else (place[0], place[1] == "step", place[1])


def all_stacks() -> str:
    """Write down what every thread of this process is doing.

    Returns:
        Stacks, the most recent call first.
    """
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def plan_event(sequences: int, sequences_needed: int, max_epochs: float) -> Event | None:
    """Judge before the start whether the data last for the run.

    Args:
        sequences: There are, for training.
        sequences_needed: Steps times sequences in a step.
        max_epochs: Passes that the recipe allows. Up to 4 are nearly as good as new data (Muennighoff et al., 2023,
            arXiv 2305.16264).

    Returns:
        An event, where they do not last.
    """
    epochs = sequences_needed / max(1, sequences)
    if epochs <= max_epochs:
        return None
    text = (
        f"the run reads {sequences_needed:,} sequences, there are {sequences:,}: {epochs:.1f} passes, more than "
        f"guards.max_epochs ({max_epochs:g}); add data, or lower max_steps until it reads "
        f"{int(max_epochs * sequences):,} at most"
    )
    details = {"sequences": sequences, "needed": sequences_needed, "epochs": epochs}
    return Event("data_exhausted", 0, text, details=details)
