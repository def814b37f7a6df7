"""Where `qwen-core curate` writes: never into its own input, and one command at a time."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from qwen_core.errors import ArtifactError, InputError, PlatformError

_OWN = ("documents/part-00000.parquet", "report/dedup/tables/dropped.json", "report.json")
"""Files of every kind that an output folder has."""


def refuse_own_input(place: str, inputs: Sequence[str]) -> None:
    """Refuse inputs that hold the output's files, for the next run would read the result of this one.

    Args:
        place: The output, absolute.
        inputs: As given: paths, globs, addresses.

    Raises:
        InputError: An input does; it is named.
    """
    own = PurePosixPath(_resolved(place))
    for given in inputs:
        if _holds(_resolved(given), own):
            raise InputError(
                f"the input {given} holds the output {place}: the next run would read its own result. Choose an "
                f"--output outside of the input, or name the input more closely"
            )


def _resolved(name: str) -> str:
    return name if "://" in name else str(Path(name).expanduser().resolve())


def _holds(name: str, own: PurePosixPath) -> bool:
    """Tell whether an input lies within the output's files, is one of them, or has one below it."""
    given = PurePosixPath(name)
    if any(given.is_relative_to(own / folder) for folder in ("documents", "report")):
        return True
    places = [place for file in _OWN for place in (own / file, *(own / file).parents)]
    if "**" in name:  # what it may stand for is more than `match` takes it for
        return any(fnmatchcase(str(place), str(given).replace("**/", "*")) for place in places)
    return any(place == given or place.match(str(given)) for place in places)


@contextmanager
def held(place: str) -> Iterator[None]:
    """Hold a local output folder; an object store cannot be held.

    The lock goes with the process, however it ends: nothing is left to clear.

    Args:
        place: The output, absolute.

    Yields:
        Nothing.

    Raises:
        PlatformError: Another command holds it.
        ArtifactError: The folder cannot be made or written to.
    """
    if "://" in place:
        yield
        return
    path = Path(place) / ".curate" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as fault:
        raise ArtifactError(
            f"{place} cannot be written to ({fault.strerror}): choose a folder, new or of an earlier run, as --output"
        ) from fault
    with file:
        _lock(file, place)
        yield


def _lock(file: IO[str], place: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as fault:
        file.seek(0)
        raise PlatformError(
            f"another command works on {place} ({file.read().strip() or 'it has just begun'}): wait for its end, or "
            f"choose another --output"
        ) from fault
    except OSError:  # a file system without locks: better unguarded than of no use
        return
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    with contextlib.suppress(OSError):  # a full disk: who holds it is told for convenience alone
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {now}")
        file.flush()
