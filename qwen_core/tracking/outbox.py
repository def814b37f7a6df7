"""What a stage could not tell MLflow waits here, as small files in the artifact store, until somebody can send it.

    write ─▶ MLflow answers? done
                └─ no ─▶ <spool>/<run>/<time>-<number>.json ─▶ sent by the stage, or by the next one

Each file is one write, with all that it takes to repeat it; done twice it is done once, so that a process killed
between sending and deleting does no harm. A run that MLflow does not know yet is made when its first write is sent.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qwen_core.artifacts import Store

Write = dict[str, Any]
_FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE", "NOT_IMPLEMENTED")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_numbers = itertools.count()
logger = logging.getLogger(__name__)


def is_final(error: Exception) -> bool:
    """Tell a refusal, which trying again cannot change, from a server that is away.

    Args:
        error: What a call of MLflow raised.

    Returns:
        Whether it is a refusal.
    """
    from mlflow.exceptions import MlflowException  # takes seconds to load

    return isinstance(error, MlflowException) and error.error_code in _FINAL


def in_short(error: Exception) -> str:
    """Say in a line what a call of MLflow raised.

    Args:
        error: The fault.

    Returns:
        Its kind and the beginning of its text.
    """
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


def answer_soon() -> None:
    """Have MLflow's client give up within seconds: its own seven tries would hold a stage for minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def default_spool() -> str:
    """Name the folder for writes where no store is given: among the temporary files of this machine."""
    return str(Path(tempfile.gettempdir()) / "qwen_core_spool")


class Outbox:
    """Writes that wait, of one run; cheap to pickle."""

    def __init__(self, spool_uri: str, run: str) -> None:
        """Name the place; nothing is read or made.

        Args:
            spool_uri: Folder of all runs' writes, local or in an object store.
            run: Names the run among them.
        """
        self.spool_uri = spool_uri.rstrip("/")
        self.uri = f"{self.spool_uri}/{_UNSAFE.sub('_', run)}"

    def add(self, write: Write) -> None:
        """Keep a write; a store that cannot be written to either loses it, with a warning.

        Args:
            write: Plain JSON.
        """
        name = f"{self.uri}/{time.time_ns():020d}-{next(_numbers):06d}.json"
        try:
            Store(self.spool_uri).write(name, json.dumps(write, ensure_ascii=False))
        except OSError as error:
            logger.warning("%s cannot be written (%s): a record for MLflow is lost", name, error)

    def waiting(self) -> list[str]:
        """List the writes that wait.

        Returns:
            Their URIs, the oldest first.
        """
        names = [name for name, _ in Store(self.spool_uri).files(self.uri)]
        return [f"{self.uri}/{name}" for name in sorted(names) if name.endswith(".json")]

    def send(self, apply: Callable[[Write], None]) -> int:
        """Send what waits, in order.

        Args:
            apply: Does a write; raises where MLflow does not answer, and then the rest stays.

        Returns:
            How many were sent, or refused for good.

        Raises:
            Exception: What `apply` raised.
        """
        store, count = Store(self.spool_uri), 0
        for uri in self.waiting():
            text = store.read(uri)
            if text is None:
                continue  # another process has sent it meanwhile
            try:
                apply(json.loads(text))
            except Exception as error:
                if not is_final(error) and not isinstance(error, ValueError):
                    raise
                logger.warning("MLflow refuses a record that waited: %s", in_short(error))
            _remove(store, uri)
            count += 1
        return count


def outboxes(spool_uri: str) -> Iterator[Outbox]:
    """Find the runs that have writes waiting.

    Args:
        spool_uri: Folder of all runs' writes.

    Yields:
        An outbox for each.
    """
    above = Store(spool_uri.rstrip("/").rpartition("/")[0])
    names = {name.partition("/")[0] for name, _ in above.files(spool_uri) if name.endswith(".json")}
    for name in sorted(names):
        yield Outbox(spool_uri, name)


def _remove(store: Store, uri: str) -> None:
    try:
        store.filesystem.delete_file(store.path_of(uri))
    except OSError:  # another process was faster
        return
