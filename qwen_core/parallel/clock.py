"""Seconds by part of a step: on a GPU by events, which do not make the host wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Adds up how long parts of a step take; parts may come back any number of times, and hold others.

    What an inner part takes is not counted in the outer one. On a GPU, a part on another stream than the one around it
    runs beside it and holds nobody up: it is left out.
    """

    def __init__(self, device: torch.device) -> None:
        """Start with nothing.

        Args:
            device: Where the work is done.
        """
        self._is_cuda = device.type == "cuda"
        self._marks: list[tuple[str, str, Any, Any]] = []
        self._open: list[tuple[str, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is inside.

        Args:
            name: Of the part.

        Yields:
            Nothing.
        """
        stream = torch.cuda.current_stream() if self._is_cuda else None
        outer, outer_stream = self._open[-1] if self._open else ("", stream)
        if stream != outer_stream:
            yield
            return
        self._open.append((name, stream))
        start = self._now()
        try:
            yield
        finally:
            self._marks.append((name, outer, start, self._now()))
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Sum up and start anew; on a GPU this waits for the last part.

        Returns:
            Seconds by part.
        """
        seconds: dict[str, float] = {}
        if self._is_cuda and self._marks:
            self._marks[-1][3].synchronize()
        for name, outer, start, end in self._marks:
            spent = start.elapsed_time(end) / 1000 if self._is_cuda else end - start
            seconds[name] = seconds.get(name, 0.0) + spent
            if outer:
                seconds[outer] = seconds.get(outer, 0.0) - spent
        self._marks.clear()
        return seconds

    def _now(self) -> Any:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
