"""The trigger against a small server that speaks Ray's API."""

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow")

from operators.ray_handover import POSITION_KEY
from operators.ray_links import MlflowRunLink
from operators.ray_trigger import RayJobTrigger


async def _events(trigger):
    return [event.payload async for event in trigger.run()]


@pytest.fixture
def xcom(monkeypatch):
    """XComs of the task, by key."""
    kept = {}

    async def aset(key, value, **place):
        assert place["task_id"] == "t"
        kept[key] = value

    async def aget_one(key, **place):
        return kept.get(key)

    monkeypatch.setattr("operators.ray_trigger.XCom", SimpleNamespace(aset=aset, aget_one=aget_one))
    return kept


def _of_task(trigger):
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
    return trigger


async def test_trigger_streams_the_log_and_yields_the_last_state(ray, shown, monkeypatch):
    job, pauses = ray.add("j", logs="one\nha"), []

    async def end_the_job(seconds):
        if seconds:
            pauses.append(list(shown))
            job.update(status="SUCCEEDED", logs="one\nhalf\nlast", driver_exit_code=0)

    monkeypatch.setattr("operators.ray_watch.asyncio.sleep", end_the_job)
    events = await _events(RayJobTrigger("ray_default", "j"))
    assert pauses == [["one"]] and shown == ["one", "half", "last"]
    assert events == [{"state": "SUCCEEDED", "message": "", "exit_code": 0}]


async def test_trigger_goes_on_where_the_worker_stopped_showing_and_lasts_a_while(ray, shown, monkeypatch):
    ray.add("j", status="SUCCEEDED", logs="one\ntwo\n")
    monkeypatch.setattr("operators.ray_trigger._MIN_SECONDS", 0.3)
    started = time.monotonic()
    assert await _events(RayJobTrigger("ray_default", "j", position_bytes=len("one\n")))
    assert shown == ["two"] and time.monotonic() - started >= 0.3


async def test_trigger_says_at_once_that_it_is_there(ray, shown, xcom):
    ray.answer_to_all = (503, "starting")
    assert await _events(_of_task(RayJobTrigger("ray_default", "j", position_bytes=7, unreachable_seconds=0)))
    assert xcom[POSITION_KEY] == {"submission_id": "j", "bytes": 7}


async def test_restarted_trigger_goes_on_where_the_last_one_was_and_says_so(ray, shown, xcom, monkeypatch):
    ray.add("j", status="SUCCEEDED", logs="one\ntwo\nthree\n")
    xcom[POSITION_KEY] = {"submission_id": "j", "bytes": len("one\ntwo\n")}
    monkeypatch.setattr("operators.ray_trigger._POSITION_SECONDS", 0)
    assert await _events(_of_task(RayJobTrigger("ray_default", "j")))
    assert "the triggerer was restarted: the log goes on from byte 8" in shown[0] and shown[1:] == ["three"]
    assert xcom[POSITION_KEY]["bytes"] == len("one\ntwo\nthree\n")


async def test_position_of_another_job_is_not_taken(ray, shown, xcom):
    ray.add("j", status="SUCCEEDED", logs="one\n")
    xcom[POSITION_KEY] = {"submission_id": "another", "bytes": 4}
    assert await _events(_of_task(RayJobTrigger("ray_default", "j")))
    assert shown == ["one"]


async def test_trigger_leaves_the_mlflow_link_while_the_job_runs(ray, shown, xcom):
    ray.add("j", status="SUCCEEDED", logs="qwen-core mlflow run: 3/abc\n")
    assert await _events(_of_task(RayJobTrigger("ray_default", "j")))
    url = "http://mlflow/#/experiments/3/runs/abc"
    assert {"mlflow_run_url": url, MlflowRunLink().xcom_key: url, "mlflow_run_id": "abc"}.items() <= xcom.items()


async def test_trigger_stops_the_job_when_the_tasks_time_is_over(ray, shown):
    ray.add("j")
    (event,) = await _events(RayJobTrigger("ray_default", "j", deadline_seconds=time.time() - 1))
    assert ray.jobs["j"]["status"] == "STOPPED"
    assert event["state"] == "TIMEOUT" and "execution_timeout is over; the job is stopped" in event["message"]


async def test_cluster_that_is_away_for_a_while_fails_nothing_and_is_told_once(ray, shown, monkeypatch):
    job, asked = ray.add("j"), []
    ray.answer_to_all = (503, "starting")

    async def come_back(seconds):
        asked.append(seconds)
        if len(asked) == 5:
            ray.answer_to_all = None
            job["status"] = "SUCCEEDED"

    monkeypatch.setattr("operators.ray_watch.asyncio.sleep", come_back)
    (event,) = await _events(RayJobTrigger("ray_default", "j"))
    assert event["state"] == "SUCCEEDED" and len(asked) >= 5
    assert len([line for line in shown if "The job is not lost by that" in line]) == 1
    assert len([line for line in shown if "Ray answers again" in line]) == 1


async def test_cluster_that_stays_away_is_told_with_its_address(shown, ray, connection):
    connection(host="127.0.0.1", port=1)
    (event,) = await _events(RayJobTrigger("ray_default", "j", unreachable_seconds=0))
    assert event["state"] == "UNREACHABLE" and "http://127.0.0.1:1" in event["message"]


async def test_refused_token_ends_the_wait_at_once(ray, shown, connection):
    connection(host="127.0.0.1", port=ray.port, password="wrong")
    (event,) = await _events(RayJobTrigger("ray_default", "j"))
    assert event["state"] == "REFUSED" and "field Token" in event["message"]


async def test_missing_connection_ends_the_wait_with_its_name(shown):
    (event,) = await _events(RayJobTrigger("nowhere", "j"))
    assert event["state"] == "UNREACHABLE" and "no usable connection 'nowhere'" in event["message"]


async def test_lost_job_is_asked_for_twice(ray, shown):
    (event,) = await _events(RayJobTrigger("ray_default", "j", poll_seconds=0))
    assert event["state"] == "LOST"
    assert len([path for _, path in ray.asked if path == "/api/jobs/j"]) == 2


async def test_unreadable_log_does_not_fail_a_job_that_succeeded(ray, shown, monkeypatch):
    from operators import ray_log
    from operators.ray_job import RayUnreachableError

    async def fail(*_):
        raise RayUnreachableError("gone")

    monkeypatch.setattr(ray_log.RayJobLog, "_new", fail)
    ray.add("j", status="SUCCEEDED", logs="one\n")
    (event,) = await _events(RayJobTrigger("ray_default", "j"))
    assert event["state"] == "SUCCEEDED" and any("cannot be read: its node is gone" in line for line in shown)


async def test_persons_kill_stops_the_job_and_the_trigger_survives_a_round_trip(ray, shown):
    ray.add("j")
    trigger = RayJobTrigger("ray_default", "j", poll_seconds=0)
    await trigger.on_kill()
    assert ray.jobs["j"]["status"] == "STOPPED" and "is stopped" in shown[-1]
    kind, arguments = trigger.serialize()
    assert kind == "operators.ray_trigger.RayJobTrigger" and RayJobTrigger(**arguments).serialize() == (kind, arguments)


async def test_kill_that_cannot_reach_ray_says_so_and_leaves_it_to_another_process(shown, connection, monkeypatch):
    aside = []
    monkeypatch.setattr("operators.ray_trigger.stop_aside", lambda address, job: aside.append((address.url, job)))
    connection(host="127.0.0.1", port=1)
    await RayJobTrigger("ray_default", "j").on_kill()
    assert "is still UNREACHABLE" in shown[-1] and aside == [("http://127.0.0.1:1", "j")]


async def test_kill_whose_token_is_refused_says_that_the_job_may_go_on(ray, shown, connection):
    connection(host="127.0.0.1", port=ray.port, password="wrong")
    await RayJobTrigger("ray_default", "j").on_kill()
    assert "could not be stopped, and may go on" in shown[-1]


async def test_twenty_triggers_share_one_loop_without_trouble(ray, shown):
    import asyncio
    import tracemalloc

    logs = "".join(f"step {number}\n" for number in range(2_000))
    for number in range(20):
        ray.add(f"j{number}", status="SUCCEEDED", logs=logs)
    tracemalloc.start()
    await asyncio.gather(*(_events(RayJobTrigger("ray_default", f"j{number}")) for number in range(20)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(shown) == 20 * 2_000 and peak < 40_000_000
