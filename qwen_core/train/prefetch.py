"""Reading ahead: the batches of the next steps are made in a thread while the model computes."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Made = TypeVar("Made")
_AHEAD = 2
"""Steps: one being made while one waits; more only hides a reader that is too slow on average."""


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
    numbers = iter(range(first, end))
    pool = ThreadPoolExecutor(1, "prefetch")
    ahead = collections.deque(pool.submit(make, number) for number in itertools.islice(numbers, _AHEAD))

    def following() -> Made:
        made = ahead.popleft().result()
        ahead.extend(pool.submit(make, number) for number in itertools.islice(numbers, 1))
        return made

    try:
        yield following
    finally:
        pool.shutdown(cancel_futures=True)
