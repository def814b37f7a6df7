"""Timing two ways of doing the same work, turn about, so that a noisy machine is noisy for both."""

from __future__ import annotations

import time
from collections.abc import Callable

Work = Callable[[], object]


def compare(title: str, unit: str, amount: float, ours: Work, peers: dict[str, Work]) -> None:
    """Print the best of several turns of each contender, and ours as a multiple of each peer.

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
        ratio = "" if name == "qwen-core" else f"   qwen-core is {seconds / best['qwen-core']:.2f} times as fast"
        print(f"  {name:28} {amount / seconds:10,.2f} {unit}{ratio}")
