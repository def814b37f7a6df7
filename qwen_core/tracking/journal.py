"""A write-ahead journal: JSON lines in a file, and how far they have been dealt with; outlives its process.

append ─▶ <path> ─▶ read ─▶ (sent) ─▶ advance ─▶ <path>.sent holds the place of the next line
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_COMPACT_BYTES = 2**20  # dealt-with lines are cut off beyond so many bytes


@dataclass(frozen=True)
class Lines:
    """Some lines of a journal.

    Attributes:
        values: What they hold; torn ones are left out.
        end: Place behind the last one.
        edition: Of the file: when it was rewritten in the meantime, `end` means nothing.
        is_rest: Whether no line waited behind the last one.
    """

    values: list[dict[str, Any]]
    end: int
    edition: int
    is_rest: bool

    def __bool__(self) -> bool:
        """Whether there was anything to read."""
        return self.end > 0


class Journal:
    """Lines of JSON that wait; safe between threads of one process."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open, or make.

        Args:
            path: The file; its folder is made where missing.
            max_bytes: Of the lines that wait; beyond it every second one is given up.
        """
        self.path, self._max_bytes = path, max_bytes
        self._mark = path.with_suffix(path.suffix + ".sent")
        self._lock = threading.Lock()
        self._edition = 0
        self._is_failing = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        self._size = path.stat().st_size
        self._start = self._read_mark()
        if self._size and not path.read_bytes().endswith(b"\n"):
            self._write(b"\n")  # a line that was torn by a kill must not swallow the next one

    @property
    def is_empty(self) -> bool:
        """Whether no line waits."""
        return self._start >= self._size

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; a disk that is full loses it, with a warning.

        Args:
            line: Plain JSON.
        """
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        with self._lock:
            try:
                self._write(text)
                self._is_failing = False
                if self._size - self._start > self._max_bytes:
                    self._thin()
            except OSError as error:
                if not self._is_failing:
                    logger.warning("%s cannot be written (%s): metrics are lost", self.path, error)
                self._is_failing = True

    def read(self, max_values: int) -> Lines:
        """Read lines that wait, from the oldest on.

        Args:
            max_values: Of all lines together, as far as more than one line is read.

        Returns:
            The lines; false when none waits.
        """
        with self._lock:
            self._file.seek(self._start)
            values: list[dict[str, Any]] = []
            end, count, is_rest = 0, 0, True
            for text in self._file:
                line = _parse(text)
                count += len(line.get("values", ())) if line else 0
                if values and count > max_values:
                    is_rest = False
                    break
                values += [line] if line else []
                end = (end or self._start) + len(text)
            return Lines(values, end, self._edition, is_rest)

    def advance(self, lines: Lines) -> None:
        """Note that lines are dealt with.

        Args:
            lines: As `read` gave them.
        """
        with self._lock:
            if lines.edition != self._edition:
                return
            self._start = lines.end
            try:
                if self._start >= self._size or self._start > _COMPACT_BYTES:
                    self._rewrite(self._rest())
                else:
                    self._mark.write_text(str(self._start))
            except OSError as error:  # they are sent again at the next start, which does no harm
                logger.warning("%s cannot be written: %s", self._mark, error)

    def remove(self) -> None:
        """Close, and delete the files."""
        with self._lock:
            self._file.close()
            self.path.unlink(missing_ok=True)
            self._mark.unlink(missing_ok=True)

    def _write(self, text: bytes) -> None:
        self._file.write(text)
        self._file.flush()  # a killed process then loses nothing; a machine that dies may
        self._size += len(text)

    def _rest(self) -> list[bytes]:
        self._file.seek(self._start)
        return self._file.readlines()

    def _thin(self) -> None:
        """Give up every second waiting line of points, so that what is left still spans the whole time."""
        rest = self._rest()
        kept = [text for place, text in enumerate(rest) if place % 2 or b'"values"' not in text]
        logger.warning("%s is full: %d of %d waiting lines are given up", self.path, len(rest) - len(kept), len(rest))
        self._rewrite(kept)

    def _rewrite(self, texts: list[bytes]) -> None:
        """Make the file hold these lines only, none dealt with."""
        new = self.path.with_suffix(".new")
        new.write_bytes(b"".join(texts))
        self._mark.unlink(missing_ok=True)  # before: sending twice does no harm, skipping would
        new.replace(self.path)
        self._file.close()
        self._file = self.path.open("ab+")
        self._size, self._start = sum(map(len, texts)), 0
        self._edition += 1

    def _read_mark(self) -> int:
        try:
            start = int(self._mark.read_text())
        except (OSError, ValueError):
            return 0
        return start if start <= self._size else 0


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
