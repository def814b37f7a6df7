"""The watcher: starts the services in their order, and starts again those that die or hang.

each second    a service is gone ─▶ counted, its remains killed, a pause of 1, 2, 4 ... 60 s ─▶ started
each 10 s      it has not answered for `hang_seconds` ─▶ killed, then as above
8 deaths within 10 minutes ─▶ failed: told as an error, and tried once each half hour

The services outlive it: `up` starts another watcher, which takes them over. Written here rather than taken from a
library, for none of those that exist takes over services after its own death, sees a hang, or knows that a Ray head
leaves remains that must go before the next start.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qwen_core.platform import processes
from qwen_core.platform.environment import environment
from qwen_core.platform.housekeeping import Housekeeper
from qwen_core.platform.services import Service, clean_ray_folder, health_of, services_of
from qwen_core.platform.settings import Home, write_secret

NAME = "watcher"
_START_SECONDS = 300.0
MAX_DEATHS = 8
_WINDOW_SECONDS = 600.0
_MAX_PAUSE_SECONDS = 60.0
_TRIAL_SECONDS = 1800.0
_TICK_SECONDS = 1.0
_HEALTH_SECONDS = 10.0

_log = logging.getLogger("watcher")


@dataclass
class Watched:
    """A service and what has happened to it; times are seconds of the monotonic clock.

    Attributes:
        service: The service.
        state: `down` (in a pause, or not started yet), `starting`, `up` or `failed`.
        restarts: How often it was started again.
        last_exit: How and when it ended last.
        due: When it may be started.
        well: When it was last known to be well, or was started.
        deaths: When it died, of late.
        process: The child, where this watcher started it.
        is_on_trial: Whether it had failed, and the next death makes it fail again.
        was_up: Whether it has ever been well.
    """

    service: Service
    state: str = "down"
    restarts: int = 0
    last_exit: str = ""
    due: float = 0.0
    well: float = 0.0
    deaths: deque[float] = field(default_factory=deque)
    process: subprocess.Popen[bytes] | None = None
    is_on_trial: bool = False
    was_up: bool = False

    def note_start(self, now: float) -> None:
        """Take note that it was started."""
        self.is_on_trial = self.state == "failed"
        self.restarts += bool(self.deaths or self.is_on_trial)
        self.state, self.well = "starting", now

    def note_death(self, now: float, how: str) -> None:
        """Take note that it ended; choose when it is started again."""
        self.last_exit = f"{how}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
        while self.deaths and self.deaths[0] < now - _WINDOW_SECONDS:
            self.deaths.popleft()
        is_on_trial = self.is_on_trial and not self.deaths and now - self.well < _WINDOW_SECONDS
        self.deaths.append(now)
        if is_on_trial or len(self.deaths) >= MAX_DEATHS:
            self.deaths.clear()
            self.state, self.due = "failed", now + _TRIAL_SECONDS
        else:
            self.state, self.due = "down", now + min(_MAX_PAUSE_SECONDS, 2.0 ** (len(self.deaths) - 1))


class Watcher:
    """Watches the services of one home."""

    def __init__(self, home: Home, services: list[Service], env: dict[str, str], hang_seconds: float) -> None:
        self._home, self._env, self._hang_seconds = home, env, hang_seconds
        known = read_supervision(home)
        self.watched = [Watched(service) for service in services]
        for watched in self.watched:
            if (told := known.get(watched.service.name)) is not None:
                watched.restarts, watched.last_exit = told.restarts, told.last_exit
        self._next_health = 0.0
        self._told: dict[str, Any] = {}
        self.is_ended = threading.Event()

    def run(self, housekeeper: Housekeeper) -> None:
        """Watch until `is_ended` is set; the services stay.

        Args:
            housekeeper: Called at each turn.
        """
        self._take_over(time.monotonic())
        while not self.is_ended.wait(_TICK_SECONDS):
            self.tick(time.monotonic())
            housekeeper.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """Look at every service once.

        Args:
            now: Seconds of the monotonic clock.
        """
        for watched in self.watched:
            if watched.state in ("starting", "up") and processes.find(self._home, watched.service.name) is None:
                self._died(watched, now, _exit_of(watched.process))
        if now >= self._next_health or any(watched.state == "starting" for watched in self.watched):
            self._look_after(now)
            self._next_health = now + _HEALTH_SECONDS
        for watched in self.watched:
            if self.is_ended.is_set():
                break
            if watched.state in ("down", "failed") and now >= watched.due:
                self._start(watched, now)
            if watched.service.goes_first and not watched.was_up and watched.state != "failed":
                break  # what comes after it waits, also while it is in a pause
        self._tell()

    def _take_over(self, now: float) -> None:
        """Take over the services that an earlier watcher left."""
        for watched in self.watched:
            if (process := processes.find(self._home, watched.service.name)) is not None:
                watched.state, watched.well, watched.was_up = "up", now, True
                _log.info("%s (pid %d) runs already", watched.service.name, process.pid)

    def _look_after(self, now: float) -> None:
        """Ask those that run how they are; end those that have not been well for too long."""
        running = [watched for watched in self.watched if watched.state in ("starting", "up")]
        told = health_of(watched.service for watched in running)
        for watched in running:
            name = watched.service.name
            if told[name] and watched.state == "starting":
                watched.state, watched.was_up = "up", True
                _log.info("%s is up", name)
            if told[name] is not False:
                watched.well = now
            limit = self._hang_seconds if watched.state == "up" else max(_START_SECONDS, self._hang_seconds)
            if now - watched.well > limit:
                self._died(watched, now, f"hung: no good answer for {limit:.0f} s")

    def _died(self, watched: Watched, now: float, how: str) -> None:
        name = watched.service.name
        processes.stop_all(self._home, name, is_harsh=True)  # its children; of one that hangs, itself too
        watched.process = None
        watched.note_death(now, how)
        if watched.state == "failed":
            _log.error(
                "%s FAILED (%s): it died too often; it is tried again in %.0f minutes. Look at: qwen-core logs %s; "
                "then start it at once: qwen-core up",
                *(name, how, _TRIAL_SECONDS / 60, name),
            )
        else:
            _log.warning("%s died (%s); it is started again in %.0f s", name, how, watched.due - now)

    def _start(self, watched: Watched, now: float) -> None:
        service = watched.service
        processes.stop_all(self._home, service.name, is_harsh=True)
        if service.name == "ray":
            clean_ray_folder(self._home)
        watched.process = processes.start(self._home, service.name, service.command, {**self._env, **service.variables})
        watched.note_start(now)
        again = f" (restart {watched.restarts})" if watched.restarts else ""
        _log.info("started %s, pid %d%s", service.name, watched.process.pid, again)

    def _tell(self) -> None:
        """Write down how the services are, where it has changed."""
        services = {
            watched.service.name: asdict(Supervision(watched.state, watched.restarts, watched.last_exit))
            for watched in self.watched
        }
        if services != self._told:
            self._told = services
            place = self._home.folder("run") / "supervision.json"
            fresh = place.with_suffix(".new")
            write_secret(fresh, json.dumps({"watcher": os.getpid(), "services": services}))
            fresh.rename(place)


@dataclass(frozen=True)
class Supervision:
    """What the watcher tells of a service; see `Watched`."""

    state: str
    restarts: int
    last_exit: str


def read_supervision(home: Home, watcher: int | None = None) -> dict[str, Supervision]:
    """Read what the watcher tells of the services.

    Args:
        home: The platform's folder.
        watcher: Only what the watcher of this process id has told.

    Returns:
        By service; empty where no watcher has told anything since the last `down`.
    """
    try:
        told = json.loads((home.path / "run" / "supervision.json").read_text(encoding="utf-8"))
        if watcher not in (None, told["watcher"]):
            return {}
        return {name: Supervision(**service) for name, service in told["services"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _exit_of(process: subprocess.Popen[bytes] | None) -> str:
    """Describe how a child ended."""
    code = process.poll() if process is not None else None
    if code is None:
        return "how is unknown: an earlier watcher had started it"
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}: kill -9, or out of memory" if name == "SIGKILL" else name


def main(arguments: list[str]) -> None:
    """Run the watcher of a home: `python -m qwen_core.platform HOME`.

    Args:
        arguments: The home.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    home = Home(Path(arguments[0]))
    settings = home.settings()
    env = environment(home, settings)
    watcher = Watcher(home, services_of(home, settings), env, settings.hang_seconds)
    signal.signal(signal.SIGTERM, lambda *_: watcher.is_ended.set())
    watcher.run(Housekeeper(home, settings.keep_logs_days))
