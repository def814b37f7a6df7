"""Who is told what: nobody without a channel, everybody with one, and no channel keeps another from it."""

import pytest

pytest.importorskip("airflow")

from operators import alerts
from qwen_core.errors import PlatformError


class Channel:
    def __init__(self, fault=None):
        self.fault, self.heard = fault, []

    def __call__(self, context):
        if self.fault:
            raise self.fault
        self.heard.append(context)

    async def async_notify(self, context):
        self(context)


@pytest.fixture
def channels(monkeypatch):
    made = [Channel(OSError("no route")), Channel()]
    monkeypatch.setattr(alerts, "alert_notifiers", lambda: made)
    return made


def test_without_a_channel_nothing_is_set(monkeypatch):
    monkeypatch.setattr(alerts, "alert_notifiers", list)
    assert alerts.failure_callbacks() == {} == alerts.success_callbacks()


def test_with_channels_failures_and_successes_are_told(channels):
    assert alerts.failure_callbacks() == {"on_failure_callback": channels}
    assert alerts.success_callbacks() == {"on_success_callback": channels}


def test_task_goes_on_where_a_channel_fails(channels):
    alerts.tell({"ti": 1}, "waits for approval")
    assert channels[1].heard == [{"ti": 1, "reason": "waits for approval"}]


async def test_missed_deadline_is_told_by_every_channel_and_a_faulty_one_is_named(channels):
    with pytest.raises(PlatformError, match="1 of 2 channels were not told: Channel: no route"):
        await alerts.tell_of_deadline({"dag_run": {}}, 5)
    assert channels[1].heard == [{"dag_run": {}}]
    del channels[0]
    assert await alerts.tell_of_deadline({}, 5) == "told by 1 channels"


def test_deadline_is_made_only_where_one_is_set(monkeypatch):
    monkeypatch.delenv("QWEN_CORE_DEADLINE_MINUTES", raising=False)
    assert alerts.deadline("corpus") == {}
    monkeypatch.setenv("QWEN_CORE_DEADLINE_MINUTES", "corpus=90")
    made = alerts.deadline("corpus")["deadline"]
    assert made.callback.path == "operators.alerts.tell_of_deadline" and made.callback.kwargs == {"minutes": 90}
    assert alerts.deadline("pretrain") == {}
