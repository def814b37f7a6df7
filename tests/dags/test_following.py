"""What the command line tells of an approval, fills into the form, and asks of Airflow."""

import io
import json
from types import SimpleNamespace

import httpx
import pytest
from rich.console import Console

from qwen_core.cli.board import Board
from qwen_core.cli.follow import Follower
from qwen_core.cli.run import form_values
from qwen_core.errors import PlatformError
from qwen_core.platform.airflow import AirflowClient


def test_recipe_goes_into_the_choice_or_into_the_path():
    assert form_values("demo", [], "k") == {"recipe": "demo", "overrides": [], "run_key": "k", "approval": False}
    assert form_values("/r/mine.yaml", ["seed=1"], "k", approval=True) == {
        **{"recipe_path": "/r/mine.yaml", "overrides": ["seed=1"], "run_key": "k", "approval": True}
    }


@pytest.fixture
def told(tmp_path):
    """Show states of the task `approve` one after another; return what was printed."""

    def show(*states, answer=None):
        airflow = SimpleNamespace(xcom=lambda *place: answer)
        platform = SimpleNamespace(
            airflow=airflow, store_root=str(tmp_path), dag_run_url=lambda dag, run: f"http://air/dags/{dag}/runs/{run}"
        )
        board = Board(Console(file=io.StringIO(), width=200))
        follower = Follower(platform, "k")
        for state in states:
            follower._show_approval("release", "r1", state and {"state": state}, board)
        return board.console.file.getvalue()

    return show


def test_waiting_for_a_person_is_told_once_with_the_page_to_answer_on(told):
    text = told(None, "scheduled", "awaiting_input", "awaiting_input")
    assert text.count("waits for approval in Airflow:") == 1
    assert "http://air/dags/release/runs/r1/tasks/approve/required_actions" in text


@pytest.mark.parametrize(("is_approved", "words"), [(True, "approved, becomes"), (False, "rejected, stays challenger")])
def test_answer_is_told_with_who_gave_it(told, is_approved, words):
    text = told("awaiting_input", "success", answer={"is_approved": is_approved, "by": "ada", "note": "fine"})
    assert words in text and "by ada. fine" in text


def test_run_without_a_question_tells_nothing(told):
    assert told("skipped") == ""


@pytest.fixture
def airflow():
    """A client of an Airflow that answers from a dictionary, and keeps what it was sent."""
    client = AirflowClient("http://air", "admin", "secret")
    client.answers, client.sent = {}, []

    def answer(request):
        client.sent.append((request.method, request.url.path, json.loads(request.content or b"null")))
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        status, body = client.answers.get((request.method, request.url.path), (404, {"detail": "none"}))
        return httpx.Response(status, json=body)

    client._http = httpx.Client(base_url="http://air", transport=httpx.MockTransport(answer))
    return client


def test_missing_pools_are_made_and_changed_ones_left_alone(airflow):
    airflow.answers = {("GET", "/api/v2/pools/training"): (200, {}), ("POST", "/api/v2/pools"): (201, {})}
    airflow.ensure_pools()
    (made,) = [body for method, path, body in airflow.sent if (method, path) == ("POST", "/api/v2/pools")]
    assert (made["name"], made["slots"], made["include_deferred"]) == ("data", 2, True)
    airflow.answers[("POST", "/api/v2/pools")] = (403, {"detail": "not yours"})
    with pytest.raises(PlatformError, match="refused to make the pool 'data'"):
        airflow.ensure_pools()


def test_only_unanswered_questions_of_waiting_tasks_count(airflow):
    details = [{"task_instance": {"state": state}, "subject": state} for state in ("awaiting_input", "failed")]
    airflow.answers = {("GET", "/api/v2/dags/release/dagRuns/r/hitlDetails"): (200, {"hitl_details": details})}
    assert [one["subject"] for one in airflow.waiting_actions("release", "r")] == ["awaiting_input"]


def test_answer_carries_option_and_note_and_a_refusal_is_told(airflow):
    path = "/api/v2/dags/release/dagRuns/r/taskInstances/approve/-1/hitlDetails"
    airflow.answers = {("PATCH", path): (200, {})}
    airflow.answer("release", "r", "approve", "Yes", "fine")
    assert airflow.sent[-1] == ("PATCH", path, {"chosen_options": ["Yes"], "params_input": {"note": "fine"}})
    airflow.answers = {("PATCH", path): (409, {"detail": "already"})}
    with pytest.raises(PlatformError, match=r"refused the answer to 'approve': .*already"):
        airflow.answer("release", "r", "approve", "Yes")


def test_partition_is_sent_only_where_there_is_one(airflow):
    airflow.answers = {("POST", "/api/v2/dags/corpus/dagRuns"): (200, {"dag_run_id": "r"})}
    airflow.trigger("corpus", {})
    airflow.trigger("corpus", {}, partition_key="k")
    first, second = [body for _, path, body in airflow.sent if path.endswith("dagRuns")]
    assert "partition_key" not in first and second["partition_key"] == "k"


def test_run_is_asked_for_again_when_the_database_was_busy_and_made_once(airflow, monkeypatch):
    monkeypatch.setattr("qwen_core.platform.airflow.time.sleep", lambda _: None)
    path = "/api/v2/dags/corpus/dagRuns"
    replies = iter([(500, {"detail": "Database error"}), (409, {"detail": "there is one"})])
    airflow.answers = SimpleNamespace(
        get=lambda asked, _: next(replies) if asked == ("POST", path) else (200, {"state": "queued"})
    )
    run_id = airflow.trigger("corpus", {})
    assert {body["dag_run_id"] for method, where, body in airflow.sent if (method, where) == ("POST", path)} == {run_id}
    assert ("GET", f"{path}/{run_id}", None) in airflow.sent
