"""From the gate to the alias: who is asked what, and what the answer does."""

import datetime
import shlex

import pytest

pytest.importorskip("airflow")
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowSkipException

from operators.ray_operator import RayJobOperator
from operators.release_operators import (
    ApproveReleaseOperator,
    PromoteModelOperator,
    RollBackModelOperator,
    approval_text,
    mlflow_pages,
)

CHECKS = [
    {
        "name": "bits_per_byte",
        "champion": 1.23456,
        "challenger": 1.2,
        "limit": 1.25,
        "verdict": "passed",
        "reason": "a|b",
    },
    {"name": "answer_loss", "champion": None, "challenger": 2.0, "limit": None, "verdict": "told", "reason": "new"},
]
GATE = {
    "name": "m",
    "version": "4",
    "decision": "awaiting_approval",
    "reason": "better",
    "champion": "3",
    "checks": CHECKS,
}


@pytest.fixture
def commands(monkeypatch):
    run = []

    def execute(self, context):
        run.append(shlex.split(self.entrypoint.removeprefix("exec ")))
        return {"name": "m", "version": "4", "changed": True, "checks": []}

    monkeypatch.setattr(RayJobOperator, "execute", execute)
    return run


def _promote(make_context, gate, answer=None):
    context = make_context(values={("release", "return_value"): gate, ("approve", "return_value"): answer})
    PromoteModelOperator(task_id="promote", outlets=[Asset("champion")]).execute(context)
    event = context["outlet_events"]["champion"]
    assert event.partition == "m-4"
    return event.extra


@pytest.mark.parametrize("decision", ["promoted", "refused"])
def test_nobody_is_asked_where_the_gate_has_decided(make_context, decision):
    context = make_context(values={("release", "return_value"): {**GATE, "decision": decision}})
    with pytest.raises(AirflowSkipException, match=rf"nobody needs to be asked: {decision} \(better\)"):
        ApproveReleaseOperator(task_id="approve").execute(context)


def test_person_sees_every_figure_of_both_models_the_reason_and_links():
    text = approval_text(GATE, mlflow_pages("http://mlflow/", GATE | {"comparison_path": "compare-runs?x=1"}))
    assert "better" in text.splitlines()[0]
    assert "| figure | champion (3) | challenger (4) |" in text
    assert "| bits_per_byte | 1.2346 | 1.2000 | 1.2500 | passed | a\\|b |" in text
    assert "| answer_loss |  | 2.0000 |  | told | new |" in text
    assert "(http://mlflow/#/models/m/versions/4)" in text and "(http://mlflow/#/compare-runs?x=1)" in text


def test_no_links_where_the_connection_knows_no_mlflow():
    assert mlflow_pages(None, GATE) == {}


def test_unanswered_counts_as_no_only_where_there_is_a_time_limit():
    assert ApproveReleaseOperator(task_id="a").defaults is None
    limited = ApproveReleaseOperator(task_id="a", response_timeout=datetime.timedelta(hours=1))
    assert limited.defaults == [limited.REJECT]


@pytest.mark.parametrize(("option", "is_approved"), [("APPROVE", True), ("REJECT", False)])
def test_answer_tells_who_and_why(make_context, option, is_approved):
    with DAG("d", schedule=None):
        approve = ApproveReleaseOperator(task_id="approve")
        approve >> EmptyOperator(task_id="promote")
    context = make_context(values={("release", "return_value"): GATE}) | {"task": approve}
    event = {
        **{"chosen_options": [getattr(approve, option)], "params_input": {"note": "fine"}},
        **{"responded_at": datetime.datetime(2026, 1, 1), "responded_by_user": {"id": "1", "name": "ada"}},
    }
    # a no skips nothing yet: `promote` tells the registry first
    assert approve.execute_complete(context, event) == {"is_approved": is_approved, "by": "ada", "note": "fine"}


def test_note_is_a_field_of_the_question():
    with DAG("d", schedule=None, params={"recipe": "demo"}):
        asked = ApproveReleaseOperator(task_id="a").serialized_params
    assert list(asked) == ["note"] and asked["note"]["schema"]["title"] == "Note / 备注"


def test_approved_version_is_promoted_in_the_persons_name(make_context, commands):
    told = _promote(make_context, GATE, {"is_approved": True, "by": "ada", "note": "--odd; note"})
    assert commands == [
        ["python", "-m", "qwen_core.jobs.promote", "--name=m", "--version=4", "--by=ada", "--why=--odd; note"]
    ]
    assert told == {"name": "m", "version": "4", "reason": "better", "changed": True}


def test_rejected_version_is_told_to_the_registry_and_the_task_is_skipped(make_context, commands):
    with pytest.raises(AirflowSkipException, match=r"version 4 was rejected by ada\. too slow"):
        _promote(make_context, GATE, {"is_approved": False, "by": "ada", "note": "too slow"})
    start = ["python", "-m", "qwen_core.jobs.promote", "--reject", "--name=m", "--version=4"]
    assert commands == [[*start, "--by=ada", "--why=too slow"]]


def test_what_the_gate_promoted_itself_needs_no_job_and_is_told_all_the_same(make_context, commands):
    assert _promote(make_context, {**GATE, "decision": "promoted"})["version"] == "4"
    assert commands == []


def test_refused_version_is_skipped_with_the_reason(make_context, commands):
    with pytest.raises(AirflowSkipException, match="the gate refused version 4: worse"):
        _promote(make_context, {**GATE, "decision": "refused", "reason": "worse"})
    assert commands == []


def test_rollback_names_a_version_only_where_the_form_does(make_context, commands):
    for params in ({"model_name": "m"}, {"model_name": "m", "version": 2, "reason": "bad"}):
        RollBackModelOperator(task_id="rollback", outlets=[Asset("champion")]).execute(make_context(params))
    start = ["python", "-m", "qwen_core.jobs.promote", "--rollback", "--name=m"]
    assert commands == [[*start, "--by=DAG rollback"], [*start, "--to=2", "--why=bad", "--by=DAG rollback"]]
