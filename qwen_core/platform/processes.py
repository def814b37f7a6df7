"""Processes of ours: started in sessions of their own, remembered with their start time, ended with all children."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from qwen_core.errors import PlatformError
from qwen_core.platform.settings import Home

_TERM_SECONDS = 15.0
_MARK = "QWEN_CORE_PLATFORM"
_SERVICE_MARK = "QWEN_CORE_SERVICE"


@dataclass(frozen=True)
class _Record:
    """What `run/NAME.json` keeps of a service: enough not to take another program's process for ours."""

    pid: int
    started_seconds: float  # after the machine's start: the clock on the wall may jump
    boot: str


@contextlib.contextmanager
def lock(home: Home) -> Iterator[None]:
    """Keep a second `up` or `down` of the same home out.

    Args:
        home: The platform's folder.

    Yields:
        While it is held.

    Raises:
        PlatformError: Another one holds it.
    """
    with (home.folder("run") / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PlatformError(
                f"another qwen-core is starting or ending the platform in {home.path}; wait for it, then try again"
            ) from error
        yield


def start(home: Home, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a service in the background, its output going to `logs/NAME.log`.

    Args:
        home: The platform's folder.
        name: The service.
        command: What to run.
        env: Its environment; marks are added by which its children are found again.

    Returns:
        The process; it goes on when the caller ends.
    """
    log = home.folder("logs") / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**env, _MARK: str(home.path), _SERVICE_MARK: name},
            cwd=home.path,
            start_new_session=True,
        )
    record = _Record(process.pid, _started_seconds(psutil.Process(process.pid)), _boot())
    (home.folder("run") / f"{name}.json").write_text(json.dumps(asdict(record)), encoding="utf-8")
    return process


def find(home: Home, name: str) -> psutil.Process | None:
    """Find a service's process.

    Args:
        home: The platform's folder.
        name: The service.

    Returns:
        The process, or `None`; a process id that another program has by now is not taken for ours.
    """
    record = _read(home.path / "run" / f"{name}.json")
    return None if record is None else _leader(record)


def all_of(home: Home, name: str | None = None) -> list[psutil.Process]:
    """Find every process that the platform started, children and orphans too.

    By the mark in its environment, or by its session: a program that sets its title overwrites the former, one that
    opens a session of its own (the driver of a Ray job) leaves the latter.

    Args:
        home: The platform's folder.
        name: Only this service's.

    Returns:
        The processes.
    """
    sessions = _sessions(home, name)
    found = {}
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            is_marked = environ.get(_MARK) == str(home.path) and name in (None, environ.get(_SERVICE_MARK))
            if (is_marked or os.getsid(process.pid) in sessions) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
        except (psutil.Error, OSError):
            continue
    return list(found.values())


def _read(path: Path) -> _Record | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return _Record(int(told["pid"]), float(told["started_seconds"]), str(told["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _boot() -> str:
    """Name the machine's present start."""
    told = Path("/proc/sys/kernel/random/boot_id")
    return told.read_text().strip() if told.is_file() else str(round(psutil.boot_time() / 100))


def _started_seconds(process: psutil.Process) -> float:
    return float(process.create_time() - psutil.boot_time())


def _leader(record: _Record) -> psutil.Process | None:
    """Find the process that was started, where it still runs."""
    process = _started(record)
    with contextlib.suppress(psutil.Error):
        return process if process is not None and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def _started(record: _Record) -> psutil.Process | None:
    """Find the process that was started, also one that has ended and whose parent has not taken note."""
    if record.boot != _boot():
        return None
    with contextlib.suppress(psutil.Error):
        for _ in range(2):  # the wall clock may be set between the two readings of which the time is the difference
            process = psutil.Process(record.pid)
            if abs(_started_seconds(process) - record.started_seconds) <= 1:
                return process
    return None


def _sessions(home: Home, name: str | None) -> set[int]:
    """List the sessions that were opened since the machine started and that no other program leads by now."""
    found = set()
    for path in (home.path / "run").glob(f"{name or '*'}.json"):
        record = _read(path)
        if record is None or record.boot != _boot():
            continue
        if _started(record) is not None or not psutil.pid_exists(record.pid):
            found.add(record.pid)
    return found


def stop_leader(home: Home, name: str) -> int:
    """End a service's own process and leave its children alone: the watcher's are the services.

    Args:
        home: The platform's folder.
        name: The service.

    Returns:
        How many processes there were: 0 or 1.
    """
    process = find(home, name)
    if process is None:
        return 0
    _end(process, is_harsh=False)
    _, alive = psutil.wait_procs([process], timeout=_TERM_SECONDS)
    for left in alive:
        _end(left, is_harsh=True)
    psutil.wait_procs(alive, timeout=_TERM_SECONDS)
    return 1


def stop_all(home: Home, name: str | None = None, is_harsh: bool = False) -> int:
    """End every process of the platform: asked first, then killed.

    Args:
        home: The platform's folder.
        name: Only this service's.
        is_harsh: Kill without asking: an Airflow task that is asked to end stops its Ray job.

    Returns:
        How many there were.
    """
    ended: set[int] = set()
    for round_is_harsh in (is_harsh, True, True):
        processes = all_of(home, name)
        ended |= {process.pid for process in processes}
        for process in processes:
            _end(process, round_is_harsh)
        psutil.wait_procs(processes, timeout=_TERM_SECONDS)
    for record in (home.path / "run").glob(f"{name or '*'}.json"):
        record.unlink()
    return len(ended)


def _end(process: psutil.Process, is_harsh: bool) -> None:
    """Ask a process to end, or kill it; one that has ended meanwhile is fine."""
    with contextlib.suppress(psutil.Error):
        if is_harsh:
            process.kill()
        else:
            process.terminate()


def memory_bytes(process: psutil.Process, is_alone: bool = False) -> int:
    """Add up the memory of a process and its children; pages that they share count once, where the system tells."""
    total = 0
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = [] if is_alone else process.children(recursive=True)
    for member in (process, *children):
        with contextlib.suppress(psutil.Error):
            told = member.memory_full_info()
            total += getattr(told, "pss", 0) or told.rss
    return total


def holder_of(port: int) -> str | None:
    """Tell which program listens on a port of this machine.

    Args:
        port: The port.

    Returns:
        `None` where it is free; else the program as far as we may see it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return _listener(port) or f"another program ({error.strerror})"
    return None


def _listener(port: int) -> str | None:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None


def tail(path: Path, lines: int) -> str:
    """Read the last lines of a log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200 * lines - 1000))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
