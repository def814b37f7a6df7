"""The board that shows every stage of a pipeline run: live on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from qwen_core.progress import Progress
from qwen_core.stages import STAGES

_MARKS = {
    "waiting": "[dim]·[/]",
    "running": "[cyan]▶[/]",
    "done": "[green]✓[/]",
    "reused": "[green]=[/]",
    "failed": "[red]✗[/]",
}
_PLAIN_INTERVAL_SECONDS = 10.0


@dataclass
class _Row:
    state: str = "waiting"
    progress: Progress | None = None
    started: float = 0.0
    seconds: float = 0.0
    printed: float = 0.0


class Board:
    """Shows stages; a context manager, so that the terminal is left in order whatever happens."""

    def __init__(self, console: Console | None = None, stages: Iterable[str] = STAGES) -> None:
        self.console = console or Console()
        self._rows = {name: _Row() for name in stages}
        self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def state(self, stage: str, state: str, seconds: float | None = None) -> None:
        """Set a stage's state.

        Args:
            stage: The stage's word.
            state: `waiting`, `running`, `done`, `reused` or `failed`.
            seconds: How long it took, where that is known better than by watching.
        """
        row = self._rows[stage]
        if row.state == state:
            return
        if state == "running":
            row.started = time.monotonic()
        elif row.started:
            row.seconds = time.monotonic() - row.started
        row.state = state
        row.seconds = seconds if seconds is not None else row.seconds
        if not self.console.is_terminal:
            words = {"reused": "already done, reused"}.get(state, state)
            took = f" ({row.seconds:.0f} s)" if state in ("done", "failed") else ""
            self.console.print(f"{STAGES[stage].dag:9} {stage:12} {words}{took}", highlight=False)

    def progress(self, told: Progress) -> None:
        """Show how far a stage has come.

        Args:
            told: The stage's latest progress line.
        """
        row = self._rows.get(told.stage)
        if row is None or row.progress == told:
            return
        row.progress = told
        if not self.console.is_terminal and time.monotonic() - row.printed > _PLAIN_INTERVAL_SECONDS:
            row.printed = time.monotonic()
            self.console.print(f"{STAGES[told.stage].dag:9} {told}", highlight=False, markup=False)

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, row in self._rows.items():
            seconds = time.monotonic() - row.started if row.state == "running" else row.seconds
            table.add_row(
                _MARKS[row.state],
                name,
                self._bar(row),
                f"{seconds:.0f} s" if seconds else "",
                "already done" if row.state == "reused" else self._figures(row),
            )
        return table

    @staticmethod
    def _bar(row: _Row) -> RenderableType:
        if row.state in ("done", "reused"):
            return ProgressBar(total=1, completed=1, width=24)
        if row.state != "running":
            return ""
        if row.progress is None or not row.progress.total:
            return ProgressBar(total=None, width=24, pulse=True)
        return ProgressBar(total=row.progress.total, completed=row.progress.done, width=24)

    @staticmethod
    def _figures(row: _Row) -> str:
        if row.progress is None:
            return ""
        told = row.progress
        of = f"/{told.total:,}" if told.total else ""
        figures = " ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in told.metrics.items())
        return f"{told.done:,}{of} {told.unit} {figures}"
