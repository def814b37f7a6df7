"""Processes of ours: started in sessions of their own, remembered with their start time, ended with all children."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import psutil

from qwen_core.platform.settings import Home

_TERM_SECONDS = 15.0
_MARK = "QWEN_CORE_PLATFORM"


def start(home: Home, name: str, command: list[str], env: dict[str, str]) -> int:
    """Start a service in the background, its output going to `logs/NAME.log`.

    Args:
        home: The platform's folder.
        name: The service.
        command: What to run.
        env: Its environment; a mark is added by which its children are found again.

    Returns:
        The process id.
    """
    log = home.folder("logs") / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**env, _MARK: str(home.path)},
            cwd=home.path,
            start_new_session=True,
        )
    record = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
    (home.folder("run") / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return process.pid


def find(home: Home, name: str) -> psutil.Process | None:
    """Find a service's process.

    Args:
        home: The platform's folder.
        name: The service.

    Returns:
        The process, or `None`; a process id that another program has by now is not taken for ours.
    """
    path = home.path / "run" / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        process = psutil.Process(record["pid"])
        if abs(process.create_time() - record["created"]) > 1 or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except (OSError, ValueError, psutil.Error):
        return None
    return process


def all_of(home: Home) -> list[psutil.Process]:
    """Find every process that the platform started, children and orphans too.

    By the mark in its environment, or by its session: a program that sets its title overwrites the former, one that
    opens a session of its own (Ray's workers) leaves the latter.
    """
    mark, sessions = str(home.path), _sessions(home)
    found = []
    for process in psutil.process_iter():
        try:
            session = sessions.get(os.getsid(process.pid))
            is_ours = session is not None and process.create_time() >= session - 1
            if (is_ours or process.environ().get(_MARK) == mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _sessions(home: Home) -> dict[int, float]:
    """Read the sessions that were opened, with their start times."""
    sessions = {}
    for path in (home.path / "run").glob("*.json"):
        with contextlib.suppress(ValueError, KeyError):
            record = json.loads(path.read_text(encoding="utf-8"))
            sessions[int(record["pid"])] = float(record["created"])
    return sessions


def stop_all(home: Home) -> int:
    """End every process of the platform: asked first, then killed.

    Args:
        home: The platform's folder.

    Returns:
        How many there were.
    """
    ended: set[int] = set()
    for harshly in (False, True, True):
        processes = all_of(home)
        ended |= {process.pid for process in processes}
        for process in processes:
            _end(process, harshly)
        psutil.wait_procs(processes, timeout=_TERM_SECONDS)
    for record in (home.path / "run").glob("*.json"):
        record.unlink()
    return len(ended)


def stop(process: psutil.Process) -> None:
    """End one service with its children."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        _end(member, harshly=False)
    _, alive = psutil.wait_procs(family, timeout=_TERM_SECONDS)
    for member in alive:
        _end(member, harshly=True)


def _end(process: psutil.Process, harshly: bool) -> None:
    """Ask a process to end, or kill it; one that has ended meanwhile is fine."""
    with contextlib.suppress(psutil.Error):
        if harshly:
            process.kill()
        else:
            process.terminate()


def memory_bytes(process: psutil.Process) -> int:
    """Add up the resident memory of a process and its children."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total


def holder_of(port: int) -> str | None:
    """Tell which program listens on a port, as far as we may see."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            try:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {process.pid})"
            except (psutil.Error, TypeError):
                return "another program"
    return None


def tail(path: Path, lines: int) -> str:
    """Read the last lines of a log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200 * lines - 1000))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
