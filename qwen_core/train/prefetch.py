"""Reading ahead: the batches of the next steps are made in a thread while the model computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Made = TypeVar("Made")
_AHEAD = 2
"""Steps: one being made while one waits; more only hides a reader that is too slow on average."""


class _Ahead(Generic[Made]):
    """A thread that makes things in order, and a queue of those that are done."""

    def __init__(self, make: Callable[[int], Made], first: int, end: int) -> None:
        self._make, self._range = make, range(first, end)
        self._queue: queue.Queue[Made | BaseException] = queue.Queue(_AHEAD)
        self._is_over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def _run(self) -> None:
        try:
            for number in self._range:
                self._put(self._make(number))
                if self._is_over.is_set():
                    return
        except BaseException as error:  # it belongs to whoever waits for the batch
            self._put(error)

    def _put(self, made: Made | BaseException) -> None:
        while not self._is_over.is_set():
            try:
                return self._queue.put(made, timeout=0.1)
            except queue.Full:
                continue

    def next(self) -> Made:
        made = self._queue.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def stop(self) -> None:
        self._is_over.set()
        self.thread.join()


@contextmanager
def prefetched(make: Callable[[int], Made], first: int, end: int) -> Iterator[Callable[[], Made]]:
    """Make things ahead of time, in order.

    Args:
        make: Called in a thread with each number; an error of its comes up where its result is asked for.
        first: The first number.
        end: One behind the last.

    Yields:
        A function that gives the next thing, and waits for it where it must.
    """
    ahead = _Ahead(make, first, end)
    ahead.thread.start()
    try:
        yield ahead.next
    finally:
        ahead.stop()
