"""What a deployment decides for the DAGs, by environment variables of Airflow's components.

They are read while the DAGs are parsed, where an Airflow Variable would ask the database each time. All have a
default with which nothing starts, waits or alarms by itself.

QWEN_CORE_RECIPE                   recipe of runs that start by themselves: name or path       demo
QWEN_CORE_RETRAIN_CRON             when `retrain` looks for new sources, such as 30 3 * * 0    none: asset or by hand
QWEN_CORE_DAILY_CRON               when `corpus_daily`, unpaused, takes the day that ended     15 0 * * *
QWEN_CORE_TIMEZONE                 of both                                                     UTC
QWEN_CORE_CATCHUP_FROM             date; missed ticks since then are made up for               none: only the newest
QWEN_CORE_TASK_TIMEOUT_MINUTES     `720`, or by stage: `ingest=120,pretrain=4320`              none
QWEN_CORE_DEADLINE_MINUTES         `600`, or by DAG: `corpus=120,pretrain=4320`                none
QWEN_CORE_APPROVAL_TIMEOUT_HOURS   unanswered so long, the challenger stays one                none: waits for ever
QWEN_CORE_APPROVERS                user ids that may answer, by comma                          everybody
QWEN_CORE_RETRIES                  further tries of a task that lost its job or its cluster    3
"""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import CronDataIntervalTimetable

from qwen_core.errors import PlatformError

if TYPE_CHECKING:
    from airflow.sdk.execution_time.hitl import HITLUser


def text(name: str, default: str) -> str:
    """Read a setting.

    Args:
        name: Without the prefix `QWEN_CORE_`.
        default: Where it is not set, or empty.

    Returns:
        Its text, without blanks around it.
    """
    return os.environ.get(f"QWEN_CORE_{name}", "").strip() or default


def minutes(name: str, word: str) -> datetime.timedelta | None:
    """Read a duration that may differ by stage or DAG.

    Args:
        name: Of a setting such as `720`, or `ingest=120,pretrain=4320`.
        word: The stage or DAG.

    Returns:
        Its duration; `None` where none is set for it.

    Raises:
        PlatformError: The setting is no number of minutes above 0.
    """
    by_word: dict[str, str] = {}
    for part in filter(None, text(name, "").replace(" ", "").split(",")):
        key, _, value = part.rpartition("=")  # without a word it is for all
        by_word[key] = value
    return _duration(f"QWEN_CORE_{name}", by_word.get(word, by_word.get("", "")), "minutes")


def hours(name: str) -> datetime.timedelta | None:
    """Read a duration.

    Args:
        name: Of a setting such as `48`.

    Returns:
        The duration; `None` where none is set.

    Raises:
        PlatformError: The setting is no number of hours above 0.
    """
    return _duration(f"QWEN_CORE_{name}", text(name, ""), "hours")


def catchup_from() -> datetime.datetime | None:
    """Read since when missed ticks are made up for.

    Returns:
        The date; `None` where only the newest tick counts.

    Raises:
        PlatformError: It is no date.
    """
    told = text("CATCHUP_FROM", "")
    try:
        return datetime.datetime.fromisoformat(told).replace(tzinfo=datetime.UTC) if told else None
    except ValueError as error:
        raise PlatformError(f"QWEN_CORE_CATCHUP_FROM is '{told}': write a date such as 2026-01-31") from error


def clock(cron: str) -> CronDataIntervalTimetable:
    """Make a schedule: at each tick a run for the time since the tick before.

    Args:
        cron: When, in the deployment's time zone.

    Returns:
        The schedule; a run's logical date, and so `{date}`, is the begin of its time.
    """
    return CronDataIntervalTimetable(cron, timezone=text("TIMEZONE", "UTC"))


def approvers() -> list[HITLUser] | None:
    """Read who may answer an approval.

    Returns:
        Users by id; `None` where everybody may who can edit DAG runs.
    """
    names = [name.strip() for name in text("APPROVERS", "").split(",") if name.strip()]
    return [{"id": name, "name": name} for name in names] or None


def retries() -> dict[str, Any]:
    """Compose the arguments of tasks that say what is tried again.

    What no retry mends (a bad recipe, unusable input, diverged training) is never tried again, whatever they say.

    Returns:
        Arguments of operators.

    Raises:
        PlatformError: The number of retries is none.
    """
    told = text("RETRIES", "3")
    if not told.isdecimal():
        raise PlatformError(f"QWEN_CORE_RETRIES is '{told}': write a whole number, 0 or more")
    return {
        "retries": int(told),
        "retry_delay": datetime.timedelta(seconds=15),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": datetime.timedelta(minutes=10),
    }


def _duration(name: str, told: str, unit: str) -> datetime.timedelta | None:
    if not told:
        return None
    try:
        made = datetime.timedelta(**{unit: float(told)})
    except (ValueError, OverflowError):
        made = datetime.timedelta()
    if made <= datetime.timedelta():
        raise PlatformError(f"{name} holds '{told}': write a number of {unit} above 0")
    return made
