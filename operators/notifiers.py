"""Notifiers: alerts to chat rooms and mailboxes, for callbacks of DAGs and tasks and for deadline alerts.

For DAGs, `alert_notifiers()` is all there is to know: a list of notifiers, empty where the deployment sets no channel.
It reads the environment of Airflow's components and contacts nobody while a DAG is parsed.

    QWEN_CORE_ALERT_WEBHOOK           https address of an incoming webhook: Slack, DingTalk, Feishu or Lark, WeCom, or
                                      any that takes JSON; the jobs on Ray read the same variable
    QWEN_CORE_ALERT_WEBHOOK_SECRET    signs messages to a DingTalk or Feishu robot
    QWEN_CORE_ALERT_CONNECTION        instead: id of an Airflow connection; its password, or its host, is the address,
                                      its extra field `secret` signs, its extra field `shape` names the kind
    QWEN_CORE_ALERT_VARIABLE          instead: name of an Airflow variable with the address, or with JSON
                                      {"url": ..., "secret": ..., "shape": ...}
    QWEN_CORE_ALERT_EMAIL             addresses, by comma; sent through Airflow's SMTP provider, connection
                                      `smtp_default`, or QWEN_CORE_ALERT_EMAIL_CONNECTION

Use: `on_failure_callback=alert_notifiers()`, `on_success_callback=alert_notifiers()`, and for a deadline either
`AsyncCallback(WebhookNotifier, {"environment": "QWEN_CORE_ALERT_WEBHOOK"})` or a coroutine of one's own that does, for
each notifier, `await notifier.async_notify(context)`. Texts are made when they are sent, from whatever the context
has: a task, a DAG run, a missed deadline.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook, BaseNotifier, Variable

from operators.alert_text import facts_of, text_of, title_of
from qwen_core.errors import PlatformError
from qwen_core.webhooks import SHAPES, refusal_of, request_of

WEBHOOK, CONNECTION, VARIABLE = (f"QWEN_CORE_ALERT_{name}" for name in ("WEBHOOK", "CONNECTION", "VARIABLE"))
EMAIL = "QWEN_CORE_ALERT_EMAIL"
_TRIES = 3
_BACKOFF_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0
_LONGEST_TEXT = 2000


@dataclass(frozen=True)
class _Webhook:
    """Where a message goes; the address is a secret."""

    place: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    shape: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PlatformError(f"{self.place} must hold an http or https address; its value is not shown here")
        if self.shape not in (None, *SHAPES):
            raise PlatformError(f"{self.place} has the shape '{self.shape}': choose one of {', '.join(SHAPES)}")


class WebhookNotifier(BaseNotifier):
    """Sends a message to a chat room."""

    template_fields: Sequence[str] = ("message",)

    def __init__(
        self,
        message: str | None = None,
        *,
        conn_id: str | None = None,
        variable: str | None = None,
        environment: str | None = None,
        shape: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Store the arguments; the address is looked up when a message is sent.

        Args:
            message: A template; `None` makes a text from the context.
            conn_id: An Airflow connection that holds the address, or
            variable: an Airflow variable, or
            environment: an environment variable of Airflow's components; it is the default.
            shape: `slack`, `dingtalk`, `feishu`, `wecom` or `json`; told by the address where `None`.
            **kwargs: Airflow's own.
        """
        super().__init__(**kwargs)
        self.message = message
        self.conn_id = conn_id
        self.variable = variable
        self.environment = environment or WEBHOOK
        self.shape = shape

    def notify(self, context: Any) -> None:
        """Send, in a worker or the DAG processor.

        Args:
            context: Airflow's.

        Raises:
            PlatformError: The webhook is not set, does not answer, or refuses.
        """
        if self.conn_id:
            webhook = self._of_connection(BaseHook.get_connection(self.conn_id))
        elif self.variable:
            webhook = self._of_variable(Variable.get(self.variable))
        else:
            webhook = self._of_environment()
        self._send(webhook, context)

    async def async_notify(self, context: Any) -> None:
        """Send, in the triggerer; see `notify`."""
        if self.conn_id:
            webhook = self._of_connection(await BaseHook.aget_connection(self.conn_id))
        elif self.variable:
            webhook = self._of_variable(await asyncio.to_thread(Variable.get, self.variable))
        else:
            webhook = self._of_environment()
        await asyncio.to_thread(self._send, webhook, context)

    def _of_connection(self, connection: Any) -> _Webhook:
        extra = json.loads(connection.extra or "{}")
        host = connection.host or ""
        url = connection.password if (connection.password or "").startswith("http") else host
        if url is host and host and "://" not in host:
            url = f"{connection.schema or 'https'}://{host}"
        return self._made(f"connection '{self.conn_id}'", {"url": url, **extra})

    def _of_variable(self, value: str) -> _Webhook:
        told = json.loads(value) if value.lstrip().startswith("{") else {"url": value.strip()}
        return self._made(f"variable '{self.variable}'", told)

    def _of_environment(self) -> _Webhook:
        told = {"url": os.environ.get(self.environment, ""), "secret": os.environ.get(f"{self.environment}_SECRET")}
        return self._made(f"environment variable {self.environment}", told)

    def _made(self, place: str, told: Mapping[str, Any]) -> _Webhook:
        return _Webhook(place, told.get("url") or "", told.get("secret") or None, self.shape or told.get("shape"))

    def _send(self, webhook: _Webhook, context: Any) -> None:
        text = (self.message or text_of(context))[:_LONGEST_TEXT]
        text = text if "qwen-core" in text else f"qwen-core: {text}"
        for attempt in range(_TRIES):
            url, body = request_of(
                webhook.url,
                text,
                facts_of(context),
                shape=webhook.shape,  # type: ignore[arg-type]
                secret=webhook.secret,
                now_seconds=time.time(),
            )
            fault = _post(url, body)
            if fault is None:
                return
            if attempt < _TRIES - 1:
                time.sleep(_BACKOFF_SECONDS * 2**attempt)
        # never the error's own text: it may hold the address
        raise PlatformError(f"the webhook of {webhook.place} did not take the message ({fault})")


class MailNotifier(BaseNotifier):
    """Sends a mail through Airflow's SMTP provider."""

    def __init__(self, to: Sequence[str], *, smtp_conn_id: str = "smtp_default", **kwargs: Any) -> None:
        """Store the arguments.

        Args:
            to: Addresses.
            smtp_conn_id: Connection of type `smtp`, with the sender's address in its field `from_email`.
            **kwargs: Airflow's own.
        """
        super().__init__(**kwargs)
        self.to = list(to)
        self.smtp_conn_id = smtp_conn_id

    def notify(self, context: Any) -> None:
        """Send, in a worker or the DAG processor.

        Args:
            context: Airflow's.
        """
        self._made(context).notify(context)

    async def async_notify(self, context: Any) -> None:
        """Send, in the triggerer; see `notify`."""
        await self._made(context).async_notify(context)

    def _made(self, context: Any) -> Any:
        from html import escape

        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        content = f"<pre>{escape(text_of(context))}</pre>"
        title = title_of(context)
        return SmtpNotifier(to=self.to, subject=title, html_content=content, smtp_conn_id=self.smtp_conn_id)


def alert_notifiers() -> list[Any]:
    """Make the deployment's notifiers, from environment variables; see the module.

    Returns:
        One for each channel that is set.
    """
    told = {name: os.environ.get(name, "").strip() for name in (WEBHOOK, CONNECTION, VARIABLE, EMAIL)}
    made: list[Any] = []
    if told[CONNECTION]:
        made.append(WebhookNotifier(conn_id=told[CONNECTION]))
    if told[VARIABLE]:
        made.append(WebhookNotifier(variable=told[VARIABLE]))
    if told[WEBHOOK]:
        made.append(WebhookNotifier(environment=WEBHOOK))
    if told[EMAIL]:
        addresses = [address.strip() for address in told[EMAIL].split(",") if address.strip()]
        connection = os.environ.get(f"{EMAIL}_CONNECTION", "").strip() or "smtp_default"
        made.append(MailNotifier(addresses, smtp_conn_id=connection))
    return made


def _post(url: str, body: Mapping[str, Any]) -> str | None:
    """Send once; return what went wrong, without the address."""
    # names of other scripts stay readable
    raw = json.dumps(body, ensure_ascii=False, default=str).encode()
    try:
        # Not httpx: it logs the addresses that it asks.
        request = urllib.request.Request(url, raw, {"Content-Type": "application/json; charset=utf-8"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            return refusal_of(answer.read(10_000))
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return type(getattr(error, "reason", None) or error).__name__
