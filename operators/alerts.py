"""Who is told when something went wrong, took too long, or a model was released.

The channels are the deployment's (see `operators.notifiers`); where none is set, nobody is told and nothing fails.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from operators.deployment import minutes
from operators.notifiers import alert_notifiers
from qwen_core.errors import PlatformError

log = logging.getLogger(__name__)


def failure_callbacks() -> dict[str, Any]:
    """Tell of tasks that failed for good.

    Returns:
        Arguments of operators; empty where no channel is set.
    """
    notifiers = alert_notifiers()
    return {"on_failure_callback": notifiers} if notifiers else {}


def success_callbacks() -> dict[str, Any]:
    """Tell of DAG runs that came to their end.

    Returns:
        Arguments of a DAG; empty where no channel is set.
    """
    notifiers = alert_notifiers()
    return {"on_success_callback": notifiers} if notifiers else {}


def tell(context: Any, reason: str) -> None:
    """Tell of something at once, from a task; a channel that fails is logged, and the task goes on.

    Args:
        context: Airflow's.
        reason: What there is to tell.
    """
    for notifier in alert_notifiers():
        try:
            notifier({**context, "reason": reason})
        except Exception as error:  # each channel fails in its own way
            log.warning("%s was not told: %s", type(notifier).__name__, error)


def deadline(dag_id: str) -> dict[str, Any]:
    """Tell of DAG runs that take longer than they may; they go on.

    Args:
        dag_id: The DAG.

    Returns:
        Arguments of a DAG; empty where it has no deadline.
    """
    longest = minutes("DEADLINE_MINUTES", dag_id)
    if longest is None:
        return {}
    told = longest.total_seconds() / 60
    alert = DeadlineAlert(
        DeadlineReference.DAGRUN_QUEUED_AT,
        longest,
        AsyncCallback(tell_of_deadline, {"minutes": told}),
        name=f"{dag_id} within {told:g} minutes",
    )
    return {"deadline": alert}


async def tell_of_deadline(context: Any, minutes: float) -> str:
    """Send the alert of a missed deadline through every channel; one that fails keeps it from no other.

    Args:
        context: What Airflow tells of the DAG run and its deadline.
        minutes: How long it was allowed to take.

    Returns:
        How many channels took it, for Airflow's list of callbacks.
    """
    notifiers, faults = alert_notifiers(), []
    for notifier in notifiers:
        try:
            await notifier.async_notify(context)
        except Exception as error:  # each channel fails in its own way
            faults.append(f"{type(notifier).__name__}: {error}")
    log.warning(
        "not done within %g minutes; told by %d of %d channels", minutes, len(notifiers) - len(faults), len(notifiers)
    )
    if faults:
        raise PlatformError(f"{len(faults)} of {len(notifiers)} channels were not told: {'; '.join(faults)}")
    return f"told by {len(notifiers)} channels"
