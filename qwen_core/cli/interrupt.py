"""A Ctrl-C that is not lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def insistent_interrupt(seconds: float = 3.0) -> Iterator[None]:
    """Raise KeyboardInterrupt again and again until it has got through.

    Libraries lose it: what is raised in a callback, or while Ray starts its processes, may be printed and forgotten,
    and the command that a person wanted to end goes on to its end.

    Args:
        seconds: Between two.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def interrupt(*_: object) -> None:
        if signal.SIGALRM not in before:  # not sooner, for others may use it
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        raise KeyboardInterrupt

    before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
