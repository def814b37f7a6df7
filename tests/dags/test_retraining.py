"""Whose turn it is, what a plan passes on, and how days are added to each other."""

import shlex
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow")
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowException

from operators.ray_operator import RayJobOperator
from operators.retrain_operator import PlanDayOperator, PlanRetrainingOperator
from operators.stage_operator import RunStageOperator
from operators.turn_sensor import TurnSensor


@pytest.fixture
def answer(monkeypatch):
    """What the Ray job answers; the commands that were run."""
    told = SimpleNamespace(result={"submission_id": "s"}, commands=[])

    def execute(self, context):
        told.commands.append(shlex.split(self.entrypoint.removeprefix("exec ")))
        return told.result

    monkeypatch.setattr(RayJobOperator, "execute", execute)
    monkeypatch.setattr(RayJobOperator, "execute_complete", lambda self, context, event: execute(self, context))
    return told


class Runs(SimpleNamespace):
    """An Airflow's DAG runs: `earlier` of the same DAG, `active` and `asked` by DAG, the first one for each look."""

    def get_previous_dagrun(self, state):
        return self.earlier.get(state)

    def get_dr_count(self, dag_id, states):
        return self.active[0].get(dag_id, 0)

    def get_ti_count(self, dag_id, states):
        asked = self.asked.get(dag_id, 0)
        if dag_id == "release" and len(self.active) > 1:
            self.active.pop(0)
        return asked


def _poke(earlier=None, active=({},), asked=None):
    sensor = TurnSensor(task_id="turn", chain=["corpus", "release"], handover_seconds=0)
    return sensor.poke({"ti": Runs(earlier=earlier or {}, active=list(active), asked=asked or {})})


def test_first_run_of_all_has_its_turn():
    assert _poke()


@pytest.mark.parametrize("state", ["queued", "running"])
def test_earlier_date_goes_first(state):
    assert not _poke({state: SimpleNamespace(run_id="scheduled__2026-01-01")})


def test_chain_at_work_is_waited_for():
    assert not _poke(active=[{"corpus": 1}])


def test_model_that_waits_for_a_person_holds_up_nothing():
    assert _poke(active=[{"release": 1}], asked={"release": 1})
    assert not _poke(active=[{"release": 2}], asked={"release": 1})


def test_dag_that_starts_between_two_looks_is_seen():
    sensor = TurnSensor(task_id="turn", chain=["corpus"], handover_seconds=0)
    looks = iter([0, 1])
    ti = SimpleNamespace(
        get_previous_dagrun=lambda state: None,
        get_dr_count=lambda dag_id, states: next(looks),
        get_ti_count=lambda dag_id, states: 0,
    )
    assert not sensor.poke({"ti": ti})


def test_plan_is_passed_on_unread_with_the_asset_of_its_run_key(make_context, answer):
    plan = PlanRetrainingOperator(task_id="plan", outlets=[Asset("retrain")])
    assert plan.skip_on_exit_code == 9
    answer.result = {
        "recipe": "demo",
        "overrides": ["ingest.base=u"],
        "run_key": "earlier",
        "reason": "3 new",
        "new_files": 3,
    }
    context = make_context({"approval": True, "run_key": "mine"})
    plan.execute(context)
    (command,) = answer.commands
    assert command[:3] == ["python", "-m", "qwen_core.jobs.retrain"]
    assert command[command.index("--run-key") + 1] == "mine" and "release.approval=true" in command
    event = context["outlet_events"]["retrain"]
    assert event.partition == "earlier"
    assert event.extra == {
        **{"recipe": "demo", "overrides": ["ingest.base=u"], "run_key": "earlier", "date": None},
        **{"reason": "3 new", "new_files": 3},
    }


def _day(context, *run_keys):
    class Events(list):
        def ascending(self, value):
            return self

        def limit(self, value):
            return self

    asset = Asset("corpus_daily")
    context["inlet_events"] = {asset: Events(SimpleNamespace(extra={"run_key": key}) for key in run_keys)}
    return PlanDayOperator(task_id="plan", corpus=asset)


def test_first_day_begins_a_corpus_and_later_ones_add_to_it(make_context, answer):
    context = make_context({"date": "2026-01-05"})
    _day(context, "daily-other").execute(context)
    _day(context, "daily-demo").execute(context)
    first, later = answer.commands
    for command in (first, later):
        assert command[2:4] == ["qwen_core.jobs.retrain", "--plan-only"]
        assert command[command.index("--run-key") + 1] == "daily-demo"
        assert command[command.index("--date") + 1] == "2026-01-05"
    assert "retrain.corpus_from=nothing" in first and "retrain.corpus_from=daily-demo" in later


def test_stage_of_a_planned_dag_runs_with_the_plans_settings(make_context, answer):
    settings = {"recipe": "demo", "overrides": ["seed=3"], "run_key": "daily-demo", "date": "2026-01-05"}
    stage = RunStageOperator(stage="dedup", plan_task_id="plan", outlets=[Asset("corpus_daily")])
    answer.result = {"submission_id": "s", "manifest_uri": "u", "rows": 7}
    context = make_context(values={("plan", "settings"): settings})
    stage.execute(context)
    assert "seed=3" in answer.commands[0]
    event = context["outlet_events"]["corpus_daily"]
    assert event.partition == "daily-demo"
    assert event.extra == {**settings, "submission_id": "s", "manifest_uri": "u", "rows": 7}


def test_job_that_is_submitted_anew_has_its_command_and_its_run_key_is_exclusive(make_context, answer):
    stage = RunStageOperator(stage="pack")
    answer.result = {"submission_id": "s", "manifest_uri": "u"}
    stage.execute_complete(make_context({"run_key": "k"}), {"state": "LOST"})
    assert answer.commands[0][2:4] == ["qwen_core.jobs", "pack"]
    assert stage.exclusive_key == "k/pack"
    assert stage.metadata == {"run_key": "k", "stage": "pack"}


def test_stage_whose_answer_is_lost_is_tried_again(make_context, answer):
    with pytest.raises(AirflowException, match="its answer is lost: the next try reads it anew"):
        RunStageOperator(stage="pack").execute(make_context({"run_key": "k"}))
