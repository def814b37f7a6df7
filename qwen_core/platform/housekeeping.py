"""Keeps the logs of a platform that runs for months small: rotated by size, deleted by age."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from qwen_core.platform.settings import Home

MAX_LOG_BYTES = 20_000_000
KEPT_LOGS = 3
_ROTATE_SECONDS = 60.0
_DELETE_SECONDS = 6 * 3600.0


class Housekeeper:
    """Rotates and deletes logs, each when its time has come."""

    def __init__(self, home: Home, keep_days: int) -> None:
        self._home, self._keep_days = home, keep_days
        self._next_rotation = self._next_deletion = 0.0

    def tick(self, now: float) -> None:
        """Do what is due.

        Args:
            now: Seconds of the monotonic clock.
        """
        if now >= self._next_rotation:
            self._next_rotation = now + _ROTATE_SECONDS
            for log in (self._home.path / "logs").glob("*.log"):
                rotate(log)
        if now >= self._next_deletion:
            self._next_deletion = now + _DELETE_SECONDS
            for name in ("airflow/logs", "ray"):
                delete_older(self._home.path / name, self._keep_days)


def rotate(log: Path, max_bytes: int = MAX_LOG_BYTES, kept: int = KEPT_LOGS) -> bool:
    """Move a log that has grown large aside, as `NAME.log.1`, and empty it.

    Copied, not renamed: the service has the file open, and goes on at its (new) end.

    Args:
        log: The log, opened by its writer for appending.
        max_bytes: It may be so large.
        kept: So many earlier ones stay.

    Returns:
        Whether it was.
    """
    try:
        if log.stat().st_size <= max_bytes:
            return False
        for number in range(kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                log.with_name(f"{log.name}.{number}").replace(log.with_name(f"{log.name}.{number + 1}"))
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        with log.open("r+b") as file:
            file.truncate(0)
    except OSError:  # a full disk: empty it all the same, or the disk stays full
        with contextlib.suppress(OSError), log.open("r+b") as file:
            file.truncate(0)
    return True


def delete_older(folder: Path, days: float) -> int:
    """Delete log files that nobody has written for long, and folders that are empty then.

    Args:
        folder: Where they lie.
        days: They stay so long.

    Returns:
        How many files were deleted.
    """
    oldest = time.time() - days * 86_400
    deleted = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.lstat().st_mtime >= oldest:
                continue
            if path.is_dir():
                path.rmdir()  # fails where something is in it
            elif path.is_file():
                path.unlink()
                deleted += 1
    return deleted
