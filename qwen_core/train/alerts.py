"""Alerts: an event as a message to a chat room, or to a command of one's own; never in training's way.

Addresses hold secrets, so they come from the environment of the job, never from a recipe, and are never logged:

    QWEN_CORE_ALERT_WEBHOOK   https address of an incoming webhook: Slack, DingTalk, Feishu or Lark, WeCom, or any that
                              takes JSON; the host decides the shape of the body
    QWEN_CORE_ALERT_WEBHOOK_SECRET   of a DingTalk or Feishu robot that checks signatures
    QWEN_CORE_ALERT_COMMAND   a command line that gets the event as JSON on its standard input

The word `qwen-core` is in each message: DingTalk's and Feishu's custom robots can ask for a keyword.

For launch: the job reads `AlertPlan.from_environment(os.environ)`; the plan travels to rank 0, which makes
`Alerts(plan, stage, label)` a sink of its `EventLog`, and calls `close()` at the end.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import shlex
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from qwen_core.errors import RecipeError
from qwen_core.train.events import Event
from qwen_core.webhooks import refusal_of, request_of

WEBHOOK_VARIABLE = "QWEN_CORE_ALERT_WEBHOOK"
SECRET_VARIABLE = "QWEN_CORE_ALERT_WEBHOOK_SECRET"
COMMAND_VARIABLE = "QWEN_CORE_ALERT_COMMAND"
_REQUEST_SECONDS = 5.0
_COMMAND_SECONDS = 30.0
_TRIES = 3
_MOST_WAITING = 100
_LONGEST_TEXT = 2000
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlertPlan:
    """Where alerts go.

    Attributes:
        webhook: Address, a secret.
        command: Command line, perhaps with a secret.
        every_seconds: At most one alert of a kind in so many; the next one tells how many were left out.
        secret: Signs what goes to the webhook, where the robot asks for that.
    """

    webhook: str | None = field(default=None, repr=False)
    command: str | None = field(default=None, repr=False)
    every_seconds: float = 300.0
    secret: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], every_seconds: float = 300.0) -> AlertPlan:
        """Read where alerts go.

        Args:
            environment: Such as `os.environ`.
            every_seconds: See the class.

        Returns:
            The plan; nothing goes anywhere where neither variable is set.

        Raises:
            RecipeError: The webhook is no http or https address.
        """
        webhook = environment.get(WEBHOOK_VARIABLE) or None
        if webhook is not None and not (urlsplit(webhook).scheme in ("http", "https") and urlsplit(webhook).hostname):
            raise RecipeError(f"{WEBHOOK_VARIABLE} must be an http or https address; its value is not shown here")
        secret = environment.get(SECRET_VARIABLE) or None
        return cls(webhook, environment.get(COMMAND_VARIABLE) or None, every_seconds, secret)


class Alerts:
    """A sink of events: warnings and errors are sent by a thread of its own."""

    def __init__(self, plan: AlertPlan, stage: str, label: str) -> None:
        """Start the thread.

        Args:
            plan: Where alerts go.
            stage: The stage's word.
            label: Names the run for a person, such as recipe and run key, or the address of its MLflow page.
        """
        self._plan, self._title = plan, f"qwen-core {stage} ({label})"
        self._queue: queue.Queue[tuple[Event, int] | None] = queue.Queue(_MOST_WAITING)
        self._last: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take an event; `info` is not sent, nor what comes too soon after one of its kind.

        Args:
            event: What happened.
        """
        if event.severity == "info" or (self._plan.webhook is None and self._plan.command is None):
            return
        last = self._last.get(event.kind)
        if last is not None and event.seconds - last < self._plan.every_seconds:
            self._left_out[event.kind] += 1
            return
        try:
            self._queue.put_nowait((event, self._left_out[event.kind]))
            self._left_out[event.kind] = 0
            self._last[event.kind] = event.seconds
        except queue.Full:
            self._left_out[event.kind] += 1

    def close(self, timeout_seconds: float = 20.0) -> None:
        """Send what waits and stop.

        Args:
            timeout_seconds: Waits at most so long.
        """
        try:
            self._queue.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (waiting := self._queue.get()) is not None:
            event, left_out = waiting
            more = f" (and {left_out} more since the last alert of this kind)" if left_out else ""
            text = f"{self._title}: {event.severity}: {event.kind} at step {event.step}: {event.message}{more}"
            text = text[:_LONGEST_TEXT]
            told = _plain(event.to_json() | {"run": self._title, "left_out": left_out})
            for name, send in (("webhook", self._post), ("command", self._run)):
                try:
                    send(text, told)
                except Exception as error:
                    # never the error's text: it may hold the address
                    why = f"{type(error).__name__} {getattr(error, 'code', '')}".strip()
                    logger.warning("the alert %s for %s failed: %s", name, event.kind, why)

    def _post(self, text: str, told: dict[str, Any]) -> None:
        if self._plan.webhook is None:
            return
        for number in range(_TRIES):
            try:
                return post(self._plan.webhook, text, told, self._plan.secret)
            except OSError:
                if number == _TRIES - 1:
                    raise
                time.sleep(2.0**number)

    def _run(self, text: str, told: dict[str, Any]) -> None:
        if self._plan.command is None:
            return
        body = json.dumps(told | {"text": text}, ensure_ascii=False)
        subprocess.run(
            shlex.split(self._plan.command),
            input=body.encode(),
            timeout=_COMMAND_SECONDS,
            check=True,
            stdout=subprocess.DEVNULL,
        )


def post(url: str, text: str, told: Mapping[str, Any], secret: str | None = None) -> None:
    """Send a message to a webhook, once.

    Args:
        url: The webhook.
        text: The message.
        told: The whole event.
        secret: Signs the message, where the robot asks for that.

    Raises:
        OSError: The host does not answer, or refuses.
    """
    address, body = request_of(url, text, told, secret=secret, now_seconds=time.time())
    headers = {"Content-Type": "application/json; charset=utf-8"}
    request = urllib.request.Request(address, json.dumps(body, ensure_ascii=False).encode(), headers)
    with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as answer:
        content = answer.read(10_000)
    if refusal := refusal_of(content):
        logger.warning("the webhook refuses: %s", refusal)
        raise ConnectionRefusedError(refusal)


def _plain(value: Any) -> Any:
    """Turn NaN and infinity, which are no JSON, into words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
