"""Timing work beside a peer's: the best of several turns, so that what else the machine does counts little."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Work = Callable[[], object]
T = TypeVar("T")


def timed(work: Callable[[], T], turns: int = 3) -> tuple[float, T]:
    """Time work in CPU time of the process, so that neither threads nor a busy machine help or harm.

    Args:
        work: Does it once.
        turns: How often it is done.

    Returns:
        Seconds of the best turn, and what the last one returned.
    """
    best = float("inf")
    for _ in range(turns):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def times_as_fast(theirs: float, ours: float) -> str:
    """Say how a peer compares.

    Args:
        theirs: Seconds of the peer.
        ours: Seconds for the same work.

    Returns:
        What stands behind the peer's rate.
    """
    return f"   qwen-core is {theirs / ours:.2f} times as fast"


def compare(title: str, unit: str, amount: float, ours: Work, peers: dict[str, Work]) -> None:
    """Print the best of three turns of each contender, turn about, in time of the clock, and ours beside each peer.

    Args:
        title: What is done.
        unit: Of the rate, such as `MB/s`.
        amount: Work in one call, in that unit.
        ours: Does the work.
        peers: Others that do the same work, by name.
    """
    contenders = {"qwen-core": ours, **peers}
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(3):
        for name, work in contenders.items():
            started = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - started)
    print(title)
    for name, seconds in best.items():
        ratio = "" if name == "qwen-core" else times_as_fast(seconds, best["qwen-core"])
        print(f"  {name:28} {amount / seconds:10,.2f} {unit}{ratio}")
