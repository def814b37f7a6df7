"""What a reader tells beside the records: how many were lost or mended, why, and where the first of them stand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_MAX_FAULTS = 200
_MAX_ALIKE = 5


@dataclass
class Report:
    """Counts of one part's reading; plain values, so that it travels between processes.

    Attributes:
        records: Records met, the lost ones included.
        drops: Records, or whole files, that were lost, by reason.
        repairs: Records that were kept but changed to be readable, by reason.
        faults: The first of each reason in each file: `path`, `position` (byte offset, row or record number; empty for
            the file as a whole) and `reason`.
        unread: Files that are not there, or closed to us.
        path: The file that is being read.
    """

    records: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    path: str = ""
    _noted: Counter[tuple[str, str]] = field(default_factory=Counter)

    def drop(self, reason: str, position: int | str = "", count: int = 1, path: str | None = None) -> None:
        """Count what was lost: a file as a whole, or records that were counted before.

        Args:
            reason: A stable word.
            position: Where in the file.
            count: How many.
            path: Of the file, where it is not the one that is being read.
        """
        self.drops[reason] += count
        self._note(reason, position, path or self.path)

    def lose(self, reason: str, position: int | str = "", count: int = 1) -> None:
        """Count records that were met and lost.

        Args:
            reason: A stable word.
            position: Where in the file.
            count: How many records.
        """
        self.records += count
        self.drop(reason, position, count)

    def repair(self, reason: str, position: int | str = "", count: int = 1) -> None:
        """Count what was kept, but changed.

        Args:
            reason: A stable word.
            position: Where in the file.
            count: How many records.
        """
        self.repairs[reason] += count
        self._note(reason, position, self.path)

    def _note(self, reason: str, position: int | str, path: str) -> None:
        alike = (path, reason)
        if self._noted[alike] < _MAX_ALIKE and len(self.faults) < _MAX_FAULTS:
            self._noted[alike] += 1
            self.faults.append({"path": path, "position": str(position), "reason": reason})
