"""One progress line, written by every stage and read back by whoever follows it.

A line such as ``[pretrain] 40/240 steps loss=5.31 tokens_per_second=4100`` goes to standard output, from
there into the Ray job's log, the Airflow task's log, and the terminal of `qwen-core run`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LINE = re.compile(
    r"\[(?P<stage>[a-z]+)\] (?P<done>\d+)(/(?P<total>\d+))? (?P<unit>[a-z_]+)(?P<metrics>( \w+=\S+)*)\s*$"
)


@dataclass(frozen=True)
class Progress:
    """How far a stage has come: `done` of `total` `unit`, with a few figures of the moment."""

    stage: str
    done: int
    total: int
    unit: str
    metrics: dict[str, float]

    def __str__(self) -> str:
        figures = "".join(f" {name}={value:.6g}" for name, value in self.metrics.items())
        of = f"/{self.total}" if self.total else ""
        return f"[{self.stage}] {self.done}{of} {self.unit}{figures}"


_listener: Callable[[Progress], None] | None = None


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Hand progress to a listener instead of printing it, while stages run in this process.

    Args:
        listener: Called with each report.

    Yields:
        Nothing.
    """
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def report(stage: str, done: int, total: int, unit: str, **metrics: float) -> None:
    """Print one progress line, flushed at once so that followers see it, or hand it to the listener.

    Args:
        stage: The stage's word.
        done: Units finished.
        total: Units in all; 0 where it is not known yet.
        unit: Plural noun in snake_case, such as `steps` or `documents`.
        **metrics: Figures of the moment, such as `loss`.
    """
    told = Progress(stage, done, total, unit, metrics)
    if _listener is not None:
        _listener(told)
    else:
        print(told, flush=True)


def parse(line: str) -> Progress | None:
    """Read a progress line back, also from behind a log's prefix.

    Args:
        line: Any line of a log.

    Returns:
        The progress that it tells, or `None` where it is another kind of line.
    """
    found = _LINE.search(line)
    if found is None:
        return None
    metrics = {}
    for pair in found["metrics"].split():
        name, _, value = pair.partition("=")
        try:
            metrics[name] = float(value)
        except ValueError:
            continue
    return Progress(found["stage"], int(found["done"]), int(found["total"] or 0), found["unit"], metrics)
