"""Settings of a deployment: defaults that do nothing, and faults that are named."""

import datetime

import pytest

pytest.importorskip("airflow")

from operators import deployment
from qwen_core.errors import PlatformError


@pytest.mark.parametrize(
    ("told", "expected"),
    [("", None), ("90", 90), ("ingest=120", None), ("pretrain=30", 30), ("90, pretrain=30", 30), ("90,ingest=1", 90)],
)
def test_duration_is_for_all_or_by_word(monkeypatch, told, expected):
    monkeypatch.setenv("QWEN_CORE_TASK_TIMEOUT_MINUTES", told)
    assert deployment.minutes("TASK_TIMEOUT_MINUTES", "pretrain") == (expected and datetime.timedelta(minutes=expected))


@pytest.mark.parametrize("told", ["soon", "0", "-5", "pretrain=", "1e99"])
def test_duration_that_is_none_is_named(monkeypatch, told):
    monkeypatch.setenv("QWEN_CORE_DEADLINE_MINUTES", told)
    if told == "pretrain=":
        assert deployment.minutes("DEADLINE_MINUTES", "pretrain") is None
        return
    with pytest.raises(PlatformError, match=f"QWEN_CORE_DEADLINE_MINUTES holds '{told}': write a number of minutes"):
        deployment.minutes("DEADLINE_MINUTES", "pretrain")


def test_other_faults_are_named_too(monkeypatch):
    monkeypatch.setenv("QWEN_CORE_CATCHUP_FROM", "31.1.2026")
    with pytest.raises(PlatformError, match="write a date such as 2026-01-31"):
        deployment.catchup_from()
    monkeypatch.setenv("QWEN_CORE_RETRIES", "many")
    with pytest.raises(PlatformError, match="write a whole number"):
        deployment.retries()


def test_nothing_is_set_by_default(monkeypatch):
    for name in ("CATCHUP_FROM", "APPROVERS", "APPROVAL_TIMEOUT_HOURS", "RETRIES"):
        monkeypatch.delenv(f"QWEN_CORE_{name}", raising=False)
    assert deployment.catchup_from() is None and deployment.approvers() is None
    assert deployment.hours("APPROVAL_TIMEOUT_HOURS") is None
    assert deployment.retries()["retries"] == 3
