"""The operator against a small server that speaks Ray's API."""

import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow")

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from operators.ray_handover import POSITION_KEY
from operators.ray_job import MOST_RESULT_BYTES, submission_stem
from operators.ray_links import RayJobLink
from operators.ray_operator import NO_RETRY, RayJobOperator


def _operator(**arguments):
    return RayJobOperator(task_id="t", entrypoint="python x.py", **{"quick_seconds": 0} | arguments)


def _event(state, exit_code=None, message=""):
    return {"state": state, "message": message, "exit_code": exit_code}


def _deferred(operator, context):
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    return deferred.value


def test_operator_submits_defers_and_leaves_link_and_id(ray, context):
    here = context()
    deferred = _deferred(_operator(), here)
    submission_id = here["ti"].pushed["submission_id"]
    assert ray.jobs[submission_id]["entrypoint"] == "python x.py"
    assert submission_id == f"{submission_stem(here['ti'])}-1"
    assert here["ti"].pushed["ray_job_url"].endswith(f"/#/jobs/{submission_id}")
    assert deferred.trigger.serialize()[1]["submission_id"] == submission_id
    assert deferred.timeout is None  # with one, Airflow ends the trigger without calling its on_kill


def test_job_says_in_rays_dashboard_which_task_it_is_of(ray, context):
    _deferred(_operator(metadata={"stage": "pack"}), context())
    (job,) = ray.jobs.values()
    told = {"dag_id": "d", "run_id": "r", "task_id": "t", "try_number": "1", "map_index": "-1", "stage": "pack"}
    assert told.items() <= job["metadata"].items()


def test_resources_of_a_template_reach_ray_as_numbers(ray, context):
    settings = {"entrypoint_num_cpus": "2", "entrypoint_num_gpus": 1, "entrypoint_memory": "1e9"}
    _deferred(_operator(**settings, entrypoint_resources={"a100": "1"}, env_vars={"A": 1}), context())
    (job,) = ray.jobs.values()
    assert (job["entrypoint_num_cpus"], job["entrypoint_num_gpus"], job["entrypoint_memory"]) == (2.0, 1.0, 10**9)
    assert job["entrypoint_resources"] == {"a100": 1.0} and job["runtime_env"] == {"env_vars": {"A": "1"}}
    with pytest.raises(AirflowFailException, match="must be numbers, not 'many'"):
        _operator(entrypoint_num_cpus="many").execute(context())


def test_restarted_worker_and_retry_attach_to_the_running_job(ray, context):
    for number in (1, 1, 2):
        _deferred(_operator(), context(number))
    assert len(ray.jobs) == 1


def test_retry_after_a_failure_submits_a_new_job(ray, context):
    _deferred(_operator(), context(1))
    next(iter(ray.jobs.values()))["status"] = "FAILED"
    _deferred(_operator(), context(2))
    assert len(ray.jobs) == 2


def test_worker_that_died_before_the_answer_gets_it_from_the_ended_job(ray, context):
    _deferred(_operator(), context())
    (job,) = ray.jobs.values()
    job.update(status="SUCCEEDED", logs="qwen-core manifest: /s/m.json\n")
    assert _operator().execute(context())["manifest_uri"] == "/s/m.json"
    assert len(ray.jobs) == 1


def test_cleared_dag_run_starts_anew_and_stops_what_still_runs(ray, context):
    _deferred(_operator(), context(1))
    (former,) = ray.jobs
    _deferred(_operator(), context(2, run_started="2026-02-02"))
    assert ray.jobs[former]["status"] == "STOPPED" and len(ray.jobs) == 2


def test_dag_run_that_was_deleted_and_made_again_does_not_take_the_old_result(ray, context):
    _deferred(_operator(), context(1))
    next(iter(ray.jobs.values())).update(status="SUCCEEDED", logs="qwen-core manifest: /old.json\n")
    _deferred(_operator(), context(1, run_started="2026-02-02"))
    assert [name.rsplit("-", 2)[-1] for name in ray.jobs] == ["1", "1"] and list(ray.jobs)[1].endswith("-1-1")


def test_job_with_another_command_is_not_taken_for_this_ones(ray, context):
    _deferred(_operator(), context(1))
    (former,) = ray.jobs
    changed = RayJobOperator(task_id="t", entrypoint="python y.py", quick_seconds=0)
    _deferred(changed, context(2))
    assert ray.jobs[former]["status"] == "STOPPED" and list(ray.jobs.values())[1]["entrypoint"] == "python y.py"


def test_result_is_read_from_the_jobs_log(ray, context):
    here = context()
    log = 'x\nqwen-core mlflow run: 3/abc\nqwen-core manifest: /s/m.json\nqwen-core result: {"n": 2, "why": "é"}\n'
    ray.add("j", status="SUCCEEDED", logs=log)
    result = _operator().execute_complete(here, _event("SUCCEEDED", 0), "j")
    assert result == {
        "submission_id": "j",
        "manifest_uri": "/s/m.json",
        "mlflow_run_id": "abc",
        "n": 2,
        "why": "é",
    }
    assert here["ti"].pushed["mlflow_run_url"] == "http://mlflow/#/experiments/3/runs/abc"


def test_mlflow_run_that_was_told_long_before_the_end_is_known_still(ray, context):
    here = context()
    here["ti"].pushed["mlflow_run_id"] = "abc"  # by the trigger, when it came
    ray.add("j", status="SUCCEEDED", logs="nothing of it\n")
    assert _operator().execute_complete(here, _event("SUCCEEDED", 0), "j")["mlflow_run_id"] == "abc"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'n': 2}", "is no JSON"),
        ('{"n": NaN}', "NaN is no JSON"),
        ("[1]", "must be a JSON mapping, not a list"),
        ("", "is no JSON"),
        ('{"n": "' + "x" * MOST_RESULT_BYTES + '"}', "16,384 is the most"),
    ],
)
def test_malformed_result_is_refused_with_the_rule_and_not_tried_again(ray, context, line, reason):
    ray.add("j", status="SUCCEEDED", logs=f"qwen-core result: {line}\n")
    with pytest.raises(AirflowFailException, match=reason):
        _operator().execute_complete(context(), _event("SUCCEEDED", 0), "j")


@pytest.mark.parametrize("code", [1, 4, 5, 6, -9, 137, None])
def test_failure_that_a_retry_may_mend_shows_the_logs_end(ray, context, code):
    ray.add("j", status="FAILED", logs="first\nthe reason\n")
    with pytest.raises(AirflowException, match="the reason") as caught:
        _operator().execute_complete(context(), _event("FAILED", code, "exit"), "j")
    assert type(caught.value) is AirflowException


@pytest.mark.parametrize("code", sorted(NO_RETRY))
def test_failure_that_no_retry_mends_is_not_tried_again(ray, context, code):
    ray.add("j", status="FAILED", logs="first\nthe reason\n")
    with pytest.raises(AirflowFailException, match=r"the reason\n.*no retry can mend it"):
        _operator().execute_complete(context(), _event("FAILED", code), "j")


def test_exit_codes_are_the_callers_to_choose(ray, context):
    ray.add("j", status="FAILED", logs="nothing new since Monday\n")
    with pytest.raises(AirflowSkipException, match="nothing new since Monday"):
        _operator(skip_on_exit_code=9).execute_complete(context(), _event("FAILED", 9), "j")
    with pytest.raises(AirflowFailException, match="The job ended with 42"):
        _operator(fail_on_exit_code=[42]).execute_complete(context(), _event("FAILED", 42), "j")
    with pytest.raises(AirflowException) as caught:
        _operator(fail_on_exit_code=()).execute_complete(context(), _event("FAILED", 2), "j")
    assert type(caught.value) is AirflowException


def test_lost_job_is_submitted_anew_under_the_next_name_within_the_budget(ray, context):
    names, arguments = [], {"submission_id": None, "resubmission": 0}
    here = context()
    deferred = _deferred(_operator(), here)
    for _ in range(2):
        names.append(deferred.kwargs["submission_id"])
        ray.jobs.clear()  # the head was restarted
        with pytest.raises(TaskDeferred) as again:
            _operator().execute_complete(here, _event("LOST"), **deferred.kwargs)
        deferred = again.value
    arguments = deferred.kwargs
    stem = f"{submission_stem(here['ti'])}-1"
    assert [*names, arguments["submission_id"]] == [stem, f"{stem}-1", f"{stem}-2"]
    with pytest.raises(AirflowException, match="LOST"):
        _operator().execute_complete(here, _event("LOST"), **arguments)


def test_subclass_that_composes_its_command_when_it_runs_is_resubmitted_with_it(ray, context):
    class Composing(RayJobOperator):
        def execute(self, here):
            self.entrypoint = "composed"
            return super().execute(here)

    made = {"task_id": "t", "entrypoint": "", "quick_seconds": 0}
    deferred = _deferred(Composing(**made), context())
    ray.jobs.clear()
    with pytest.raises(TaskDeferred):
        Composing(**made).execute_complete(context(), _event("LOST"), **deferred.kwargs)
    assert [job["entrypoint"] for job in ray.jobs.values()] == ["composed"]


def test_retry_finds_a_job_that_was_submitted_anew(ray, context):
    here = context()
    deferred = _deferred(_operator(), here)
    ray.jobs.clear()
    with pytest.raises(TaskDeferred):
        _operator().execute_complete(here, _event("LOST"), **deferred.kwargs)
    _deferred(_operator(), context(2))
    assert len(ray.jobs) == 1


def test_cleared_task_submits_anew_when_the_former_trys_job_was_stopped(ray, context):
    _deferred(_operator(), context(1))
    (former,) = ray.jobs
    here = context(2)
    deferred = _deferred(_operator(), here)  # attaches: the job still runs
    assert deferred.kwargs["submission_id"] == former
    ray.jobs[former]["status"] = "STOPPED"
    with pytest.raises(TaskDeferred) as again:
        _operator().execute_complete(here, _event("STOPPED"), **deferred.kwargs)
    assert again.value.kwargs["submission_id"] == f"{submission_stem(here['ti'])}-2" and len(ray.jobs) == 2


def test_job_that_a_person_stopped_in_ray_fails_the_task(ray, context):
    here = context()
    deferred = _deferred(_operator(), here)
    with pytest.raises(AirflowException, match="ended as STOPPED"):
        _operator().execute_complete(here, _event("STOPPED"), **deferred.kwargs)


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        ("TIMEOUT", AirflowTaskTimeout, "the reason"),
        ("UNREACHABLE", AirflowException, "may still run, the next try finds it again. the reason"),
        ("REFUSED", AirflowFailException, "may still run. the reason"),
    ],
)
def test_task_that_ends_before_its_job_says_so(ray, context, state, error, text):
    with pytest.raises(error, match=text) as caught:
        _operator().execute_complete(context(), _event(state, message="the reason"), "j")
    assert type(caught.value) is error


def test_waiting_task_shows_the_log_answers_and_stops_its_job_when_killed(ray, context, shown):
    here = context()
    job = ray.add(f"{submission_stem(here['ti'])}-1", entrypoint="python x.py", logs="a\n")
    job["metadata"] = {"airflow_run_started": "2026-01-01"}
    operator = _operator(deferrable=False, poll_seconds=0.01)
    threading.Timer(0.2, operator.on_kill).start()
    with pytest.raises(AirflowException, match="the task was killed"):
        operator.execute(here)
    assert job["status"] == "STOPPED" and "a" in shown
    job.update(status="SUCCEEDED", logs="qwen-core manifest: /s/m.json\n")
    assert _operator(deferrable=False).execute(here)["manifest_uri"] == "/s/m.json"


def test_stop_that_ray_forgets_goes_on_when_the_worker_is_gone(ray, context, monkeypatch):
    monkeypatch.setattr("operators.ray_operator._KILL_SECONDS", 0.1)
    operator, here = _operator(), context()
    submission_id = _deferred(operator, here).kwargs["submission_id"]
    ray.stops_to_forget = 2
    operator.on_kill()
    assert ray.jobs[submission_id]["status"] == "RUNNING"
    until = time.monotonic() + 60
    while ray.jobs[submission_id]["status"] != "STOPPED":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_kill_that_comes_while_the_job_is_submitted_stops_it(ray, context, monkeypatch):
    operator = _operator()
    monkeypatch.setattr("operators.ray_attach.submission_id_of", lambda *_: operator.on_kill() or "j")
    with pytest.raises(AirflowException, match="the task was killed"):
        operator.execute(context())
    assert ray.jobs["j"]["status"] == "STOPPED"


def test_quick_job_is_answered_without_deferring_and_a_longer_one_shows_its_log_once(ray, context, shown):
    operator = _operator(quick_seconds=30, poll_seconds=0.01)

    def end_the_job():
        (job,) = ray.jobs.values()
        job.update(status="SUCCEEDED", logs="first\nsecond\nqwen-core mlflow run: 1/a\nqwen-core manifest: /s/m.json\n")

    threading.Timer(0.3, end_the_job).start()
    here = context()
    assert operator.execute(here)["manifest_uri"] == "/s/m.json"
    assert here["ti"].pushed["mlflow_run_url"].endswith("/runs/a")
    here = context(2)
    ray.add(f"{submission_stem(here['ti'])}-2", entrypoint="python x.py", logs="first\nsec")
    ray.jobs[f"{submission_stem(here['ti'])}-2"]["metadata"] = {"airflow_run_started": "2026-01-01"}
    assert _deferred(_operator(), here).trigger.serialize()[1]["position_bytes"] == len("first\n")


@pytest.mark.parametrize("state", ["failed", "restarting", None])
def test_task_that_was_killed_just_before_it_defers_stops_its_job(ray, context, state):
    with pytest.raises(AirflowException, match="failed, cleared or deleted meanwhile"):
        _operator().execute(context(airflow_state=state))
    assert next(iter(ray.jobs.values()))["status"] == "STOPPED"


@pytest.mark.parametrize(("state", "end"), [("failed", "STOPPED"), ("skipped", "STOPPED"), (None, "STOPPED")])
def test_task_that_is_killed_before_its_trigger_came_stops_its_job(ray, context, state, end, monkeypatch):
    here, operator = context(), _operator()
    _deferred(operator, here)
    here["ti"].airflow_state = state
    monkeypatch.setattr("operators.ray_links.XCom", SimpleNamespace(get_value=lambda **_: "url"))
    assert RayJobLink().get_link(operator, ti_key=here["ti"]) == "url"
    assert [job["status"] for job in ray.jobs.values()] == [end]


def test_worker_leaves_a_deferred_task_when_its_trigger_has_come_or_not_in_time(ray, context, monkeypatch):
    monkeypatch.setattr("operators.ray_handover._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("operators.ray_handover._LONGEST_SECONDS", 0.1)
    here, operator = context(), _operator()
    _deferred(operator, here)
    here["ti"].airflow_state = "deferred"
    started = time.monotonic()
    operator.after_defer(here["ti"])
    assert time.monotonic() - started >= 0.1
    monkeypatch.setattr("operators.ray_handover._LONGEST_SECONDS", 60)
    here, operator = context(), _operator()
    deferred = _deferred(operator, here)
    here["ti"].pushed[POSITION_KEY] = {"submission_id": deferred.kwargs["submission_id"], "bytes": 0}
    operator.after_defer(here["ti"])
    assert [job["status"] for job in ray.jobs.values()] == ["RUNNING"]


def test_second_job_of_one_key_is_refused_and_the_first_goes_on(ray, context):
    _deferred(_operator(exclusive_key="run/pack"), context(run_id="r1"))
    with pytest.raises(AirflowFailException, match=r"\(DAG run r1\) works on 'run/pack' already") as refused:
        _operator(exclusive_key="run/pack").execute(context(run_id="r2"))
    assert "clear this task" in str(refused.value)
    assert [job["status"] for job in ray.jobs.values()] == ["RUNNING", "STOPPED"]
    _deferred(_operator(exclusive_key="run/pack"), context(2, run_id="r1"))  # its own job is no twin


def test_refused_token_is_not_tried_again_and_an_absent_cluster_is(ray, context, connection):
    connection(host="127.0.0.1", port=ray.port, password="wrong")
    with pytest.raises(AirflowFailException, match="field Token"):
        _operator().execute(context())
    connection(host="127.0.0.1", port=1)
    with pytest.raises(AirflowException, match="qwen-core status") as caught:
        _operator(unreachable_seconds=0).execute(context())
    assert type(caught.value) is AirflowException


@pytest.mark.parametrize("away", [(503, "starting"), (500, "No available agent to submit job"), (200, "<html>")])
def test_head_that_starts_costs_no_try_when_a_job_is_submitted(ray, context, away, monkeypatch):
    monkeypatch.setattr("operators.ray_hook._BACKOFF_SECONDS", 0.01)  # the hook's own tries end before Ray is back
    ray.answer_to_all = away
    threading.Timer(0.6, setattr, [ray, "answer_to_all", None]).start()
    deferred = _deferred(_operator(unreachable_seconds=60), context())
    assert list(ray.jobs) == [deferred.kwargs["submission_id"]]


def test_answer_is_read_when_ray_is_back(ray, context, monkeypatch):
    monkeypatch.setattr("operators.ray_hook._BACKOFF_SECONDS", 0.01)
    operator, here = _operator(unreachable_seconds=60), context()
    (submission_id,) = [_deferred(operator, here).kwargs["submission_id"]]
    ray.jobs[submission_id] |= {"status": "SUCCEEDED", "driver_exit_code": 0, "logs": 'qwen-core result: {"rows": 3}\n'}
    ray.answer_to_all = (502, "away")
    threading.Timer(0.6, setattr, [ray, "answer_to_all", None]).start()
    assert operator.execute_complete(here, _event("SUCCEEDED", 0), submission_id)["rows"] == 3


def test_templated_fields_are_arguments():
    import inspect

    assert set(RayJobOperator.template_fields) <= set(inspect.signature(RayJobOperator.__init__).parameters)
