"""How long a worker is held up by its collectives: the call where it blocks, the wait where it does not.

DeepSpeed calls all of its collectives through one backend object, whose methods are wrapped once; while a step is on,
they count into that step's clock as `communication`. Waiting for a slower worker counts too. What a GPU's own stream
hides behind the work does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qwen_core.parallel.clock import Clock

_COLLECTIVES = (
    *("all_reduce", "all_reduce_coalesced", "reduce", "reduce_scatter", "reduce_scatter_tensor", "broadcast"),
    *("all_gather", "all_gather_into_tensor", "all_gather_coalesced", "all_to_all_single", "all_to_all", "barrier"),
)
# One for the process: a backward pass runs in threads of autograd's, which know nothing of a context.
_clock: Clock | None = None


@contextmanager
def counted(clock: Clock) -> Iterator[None]:
    """Count the collectives of what is inside.

    Args:
        clock: Of the step.

    Yields:
        Nothing.
    """
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


@contextmanager
def communication() -> Iterator[None]:
    """Count what is inside as communication, where a step counts.

    Yields:
        Nothing.
    """
    if _clock is None:
        yield
        return
    with _clock.part("communication"):
        yield


def watch_deepspeed() -> None:
    """Wrap the collectives of DeepSpeed's backend, which must be up; a second call changes nothing."""
    from deepspeed.comm import comm

    for name in _COLLECTIVES:
        method = getattr(comm.cdb, name)
        if not hasattr(method, "is_counted"):
            setattr(comm.cdb, name, _counted_call(method))


class _Handle:
    """A collective under way; waiting for it is counted."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the collective; see torch's `Work`."""
        with communication():
            return self._work.wait(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def _counted_call(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with communication():
            work = method(*args, **kwargs)
        return _Handle(work) if hasattr(work, "wait") else work

    call.is_counted = True  # type: ignore[attr-defined]
    return call
