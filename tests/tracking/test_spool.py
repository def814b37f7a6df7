"""Metrics on their way: nothing lost while MLflow is away, no point twice after a resume, new ones after a rollback."""

import json
import math
import os
import signal
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from qwen_core.config import load_recipe
from qwen_core.tracking.events import COLUMNS, LAST_EVENT_TAG, EventTable
from qwen_core.tracking.journal import Journal
from qwen_core.tracking.runs import StageRun, begin_stage_run
from qwen_core.tracking.spool import REWINDS_TAG, MetricLog, spool_folder
from tests.tracking.fake_server import FakeServer


@pytest.fixture
def server():
    return FakeServer()


def metric_log(server, tmp_path, **more) -> MetricLog:
    return MetricLog(server, tmp_path, **{"interval_seconds": 0.01} | more)


def test_points_arrive_in_few_requests_and_nothing_is_left(server, tmp_path):
    log = metric_log(server, tmp_path, interval_seconds=5)  # far longer than the loop, on a busy machine too
    for step in range(300):
        log.log({"train/loss": 1.0 / (step + 1), "train/tokens": step}, step)
    assert log.close(10)
    assert server.steps() == list(range(300)) and server.requests <= 5
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_delays_nothing_and_loses_nothing(server, tmp_path, caplog):
    server.is_away = True
    log = metric_log(server, tmp_path)
    for step in range(50):
        log.log({"train/loss": 1.0}, step)
    assert server.asked.wait(5) and server.steps() == []
    server.is_away = False
    assert log.close(10) and server.steps() == list(range(50))
    assert caplog.text.count("MLflow takes no metrics") == 1 and "MLflow answers again" in caplog.text


def test_what_could_not_be_sent_is_sent_by_the_next_attempt_with_its_own_time(server, tmp_path, caplog):
    server.is_away = True
    log = metric_log(server, tmp_path)
    log.log({"train/loss": 3.0}, 1, seconds=1000.0)
    assert not log.close(0.1) and "wait in" in caplog.text
    log._thread.join(10)  # with its process it would be gone
    assert not log._thread.is_alive()
    server.is_away = False
    again = metric_log(server, tmp_path)
    again.log({"train/loss": 3.0}, 1)  # the resumed run repeats the step
    again.log({"train/loss": 2.0}, 2)
    assert again.close(10)
    assert next(iter(server.points)) == ("train/loss", 1, 3.0, 1_000_000) and server.steps() == [1, 2]


def test_a_resumed_run_does_not_log_a_step_twice_metric_by_metric(server, tmp_path):
    log = metric_log(server, tmp_path / "one")
    for step in range(5, 20, 5):
        log.log({"train/loss": float(step)}, step)
    log.log({"validation/loss": 4.0}, 10)
    log.close(10)
    resumed = metric_log(server, tmp_path / "another machine")
    for step in range(10, 30, 5):  # the checkpoint was of step 8, the death after 15
        resumed.log({"train/loss": float(step)}, step)
    for step in (10, 20):
        resumed.log({"validation/loss": 3.0}, step)
    resumed.close(10)
    assert server.steps() == [5, 10, 15, 20, 25] and server.steps("validation/loss") == [10, 20]


def test_two_points_of_one_attempt_at_one_step_are_both_kept(server, tmp_path):
    log = metric_log(server, tmp_path)
    log.log({"events/loss_spike": 1}, 7)
    log.log({"events/loss_spike": 2}, 7)
    log.close(10)
    assert server.steps("events/loss_spike") == [7, 7]


def branch(log: MetricLog, steps, offset: float) -> None:
    for step in steps:
        log.log({"train/loss": step + offset}, step)


def test_after_a_rollback_the_new_course_is_logged_and_a_resume_repeats_neither(server, tmp_path):
    first = metric_log(server, tmp_path)
    first.rewind(0, 0)
    branch(first, range(1, 11), 0.0)
    first.rewind(1, 4)
    branch(first, range(5, 8), 0.5)
    first.close(10)  # killed here: the new course is at 7, the old one was at 10
    assert json.loads(server.tags[REWINDS_TAG])[0]["step"] == 4
    for start, rollbacks in ((4, 1), (2, 0)):  # the checkpoint is from after the rollback, or from before it
        again = metric_log(server, tmp_path)
        again.rewind(rollbacks, start)
        if rollbacks == 0:
            branch(again, range(3, 11), 0.0)
            again.rewind(1, 4)
        branch(again, range(5, 10), 0.5)
        again.close(10)
    values = [value for key, step, value, _ in server.points]
    assert values == [float(n) for n in range(1, 11)] + [5.5, 6.5, 7.5, 8.5, 9.5]
    assert len(json.loads(server.tags[REWINDS_TAG])) == 1


def test_a_resume_on_a_machine_whose_clock_is_behind_repeats_nothing(server, tmp_path, monkeypatch):
    first = metric_log(server, tmp_path)
    branch(first, range(1, 11), 0.0)
    first.rewind(1, 4)
    first.close(10)
    monkeypatch.setattr(MetricLog, "_now", lambda self, later=False: 1000)
    for end in (8, 10):
        again = metric_log(server, tmp_path)
        again.rewind(1, 4)
        branch(again, range(5, end), 0.5)
        again.close(10)
    assert [value for _, _, value, _ in server.points][10:] == [5.5, 6.5, 7.5, 8.5, 9.5]


def test_where_a_resume_does_not_repeat_the_rollback_its_own_course_is_logged(server, tmp_path):
    first = metric_log(server, tmp_path)
    branch(first, range(1, 11), 0.0)
    first.rewind(1, 4)
    branch(first, range(5, 8), 0.5)
    first.close(10)
    again = metric_log(server, tmp_path)  # from the checkpoint of before the rollback
    branch(again, range(5, 14), 0.25)
    again.close(10)
    assert [value for key, step, value, _ in server.points][-3:] == [11.25, 12.25, 13.25]
    assert len(server.points) == 10 + 3 + 3


def test_a_name_that_mlflow_refuses_for_good_holds_up_nothing(server, tmp_path, caplog):
    server.refused = {"bad"}
    log = metric_log(server, tmp_path)
    for step in range(8):
        log.log({"train/loss": 1.0, "bad": 2.0}, step)
    assert log.close(10) and log.dropped == 8 and server.steps() == list(range(8))
    assert "MLflow refuses bad" in caplog.text


def test_names_are_made_ones_that_mlflow_takes(server, tmp_path):
    log = metric_log(server, tmp_path)
    log.log({"validation/loss/source/a?b//../中文": 1.0, "train/loss": math.nan}, 1)
    log.close(10)
    names = sorted(key for key, *_ in server.points)
    assert names == ["train/loss", "validation/loss/source/a_b/中文"]


def test_an_action_is_done_once_the_server_answers_and_only_the_latest_of_its_name(server, tmp_path):
    done = []

    def act(name):
        def action():
            server._answer()
            done.append(name)

        return action

    server.is_away = True
    log = metric_log(server, tmp_path)
    log.put("table", act("first"))
    log.put("table", act("second"))
    assert server.asked.wait(5)
    server.is_away = False
    assert log.close(10) and done == ["second"]


def test_logging_takes_a_tenth_of_a_millisecond_or_so(server, tmp_path):
    log = metric_log(server, tmp_path)
    figures = {f"train/figure_{number}": 1.0 for number in range(20)}
    started = time.thread_time()
    for step in range(200):
        log.log(figures, step)
    assert (time.thread_time() - started) / 200 < 0.002
    log.close(10)


def test_a_torn_line_and_a_full_journal_are_survived(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"values":{"a":1},"step":1}\n{"values":{"a":2},"st')
    journal = Journal(path, max_bytes=10_000)
    for step in range(2, 400):
        journal.append({"values": {"a": 1.0}, "step": step})
    lines = journal.read(10_000)
    steps = [line["step"] for line in lines.values]
    assert len(steps) < 400 and steps == sorted(steps) and steps[-1] > 390 and min(steps) < 20
    assert "is full" in caplog.text
    journal.advance(lines)
    assert journal.is_empty and path.stat().st_size == 0


def test_a_journal_goes_on_behind_what_was_sent(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = Journal(path, 10_000)
    for step in range(4):
        journal.append({"values": {"a": 1.0, "b": 2.0}, "step": step})
    journal.advance(journal.read(4))
    assert [line["step"] for line in Journal(path, 10_000).read(100).values] == [2, 3]


def test_points_wait_in_the_state_folder_where_it_is_local(tmp_path):
    assert spool_folder(str(tmp_path)) == tmp_path / "spool"
    assert "://" not in str(spool_folder("s3://bucket/state"))


def test_a_journal_replayed_into_mlflow_keeps_each_point_once(mlflow_uri, tmp_path):
    with begin_stage_run(mlflow_uri, load_recipe("demo"), "key", "pretrain", "f1") as run:
        for start in (0, 3):  # the second attempt resumes at 3, after the first got to 6
            log = MetricLog(run, tmp_path, interval_seconds=0.01)
            for step in range(start, start + 6):
                log.log({"train/loss": 9.0 - step, "validation/loss": math.inf}, step)
            assert log.close(30)
    history = MlflowClient(mlflow_uri).get_metric_history(run.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [(step, 9.0 - step) for step in range(9)]


def event(kind: str, step: int, message: str = "it happened") -> dict:
    return {"kind": kind, "step": step, "message": message, "severity": "warning", "details": {}, "seconds": 5.0}


def test_events_are_counted_by_kind_kept_in_a_table_and_not_repeated_by_a_resume(mlflow_uri, tmp_path):
    with begin_stage_run(mlflow_uri, load_recipe("demo"), "key", "pretrain", "f1") as run:
        for kinds in (["loss_spike", "rollback"], ["loss_spike", "rollback", "stalled_step"]):
            log = MetricLog(run, tmp_path, interval_seconds=0.01)
            table = EventTable(run, log, tmp_path)
            for step, kind in enumerate(kinds):
                table.record(event(kind, step))
            table.record(event("loss_spike", 10 + len(kinds)))
            assert log.close(30)
    client = MlflowClient(mlflow_uri)
    counts = [(point.step, point.value) for point in client.get_metric_history(run.run_id, "events/loss_spike")]
    assert sorted(counts) == [(0, 1), (12, 2), (13, 3)]
    stored = json.loads(Path(client.download_artifacts(run.run_id, "tables/events.json")).read_text())
    assert stored["columns"] == list(COLUMNS)
    assert [(row[3], row[1]) for row in stored["data"]] == [
        ("loss_spike", 0), ("rollback", 1), ("loss_spike", 12), ("stalled_step", 2), ("loss_spike", 13),
    ]  # fmt: skip
    assert client.get_run(run.run_id).data.tags[LAST_EVENT_TAG] == "loss_spike at step 13: it happened"


def test_events_that_could_not_be_stored_are_stored_by_the_next_attempt(mlflow_uri, tmp_path):
    with begin_stage_run(mlflow_uri, load_recipe("demo"), "key", "pretrain", "f1") as run:
        away = FakeServer()
        away.is_away, away.run_id = True, run.run_id
        away.log_table = lambda *_: away._answer()
        away.list_artifacts = lambda *_: away._answer()
        log = metric_log(away, tmp_path)
        EventTable(away, log, tmp_path).record(event("diverged", 3))
        log.close(0.05)
        again = MetricLog(run, tmp_path, interval_seconds=0.01)
        EventTable(run, again, tmp_path)
        assert again.close(30)
    assert MlflowClient(mlflow_uri).get_run(run.run_id).data.metrics["events/diverged"] == 1


@pytest.mark.slow
def test_a_real_server_may_be_stopped_and_started_while_a_run_logs(tmp_path):
    """Ten steps with the server up, ten with it down, ten after it is up again: thirty points."""
    import socket
    import subprocess
    import sys
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        str(tmp_path / "a"),
    ]

    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def start():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, env=environment, **quiet)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1)
                return process
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def stop(process):
        os.killpg(process.pid, signal.SIGKILL)  # the server has children
        process.wait(30)

    process = start()
    try:
        client = MlflowClient(uri)
        made = client.create_run(client.create_experiment("e"))
        run = StageRun(made.info.run_id, made.info.run_id, made.info.experiment_id, uri, "pretrain")
        log = MetricLog(run, tmp_path / "spool", interval_seconds=0.1)
        table = EventTable(run, log, tmp_path / "spool")
        for step in range(30):
            if step == 10:
                assert log.flush(30)
                stop(process)
            started = time.monotonic()
            log.log({"train/loss": 30.0 - step}, step)
            if step == 15:
                table.record(event("loss_spike", step))
            assert time.monotonic() - started < 1  # never waits
            if step == 19:
                process = start()
        assert log.close(60)
        history = client.get_metric_history(run.run_id, "train/loss")
        assert sorted(point.step for point in history) == list(range(30))
        assert client.get_run(run.run_id).data.metrics["events/loss_spike"] == 1
    finally:
        stop(process)
