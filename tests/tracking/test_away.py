"""MLflow that is away: no stage stops at its start, on its way or at its end, and nothing that it told is lost."""

import time
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Manifest
from qwen_core.config import load_recipe
from qwen_core.tracking import runs, stage_run, writes
from qwen_core.tracking.leftover import keep_waiting
from qwen_core.tracking.outbox import Outbox, outboxes
from qwen_core.tracking.runs import begin_stage_run, pipeline_run_id, send_all
from qwen_core.tracking.spool import MetricLog

RECIPE = load_recipe("demo")


@pytest.fixture
def switch(monkeypatch):
    """Turns MLflow off and on for everything that a stage does; `asked` counts the tries while it is off."""
    state = SimpleNamespace(is_away=False, asked=0)

    def client(*given, **named):
        if state.is_away:
            state.asked += 1
            raise MlflowException("API request failed: connection refused")
        return MlflowClient(*given, **named)

    for module in (runs, stage_run):
        monkeypatch.setattr(module, "MlflowClient", client)
    for name in ("_START_SECONDS", "_END_SECONDS"):
        monkeypatch.setattr(runs, name, 0.0)
    monkeypatch.setattr(stage_run, "LATE_SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(stage_run, "_AGAIN_SECONDS", 0.05)
    return state


@pytest.fixture
def spool(tmp_path):
    return str(tmp_path / "store" / "spool")


def manifest(stage="pack", fingerprint="f" * 16):
    empty = {name: {} for name in ("inputs", "sources", "config", "columns", "drops", "metrics", "details", "files")}
    numbers = {"stage_version": 1, "rows": 5, "bytes": 6, "tokens": 7, "seconds": 1.0}
    texts = {"uri": f"/s/{stage}/m.json", "data_uri": "/s/d", "code_version": "1", "created_at": "", "run_key": "key"}
    return Manifest(stage=stage, fingerprint=fingerprint, mlflow_run_id=None, **empty, **numbers, **texts)


def tell(run):
    run.log_params({"pack": {"max_seq_len": 77}})
    run.log_metrics({"loss": 2.0}, step=3)
    run.log_result({"rows": 5, "tokens": 7, "seconds": 1.5})
    run.log_figure(Figure(), "plots/funnel.png")
    run.log_table({"a": [1, 2]}, "funnel")
    run.log_text("words", "note.md")
    run.log_dataset(manifest(), "output")
    run.set_tags({"some": "tag"})


def check_told(uri, key="key", stage="pack", status="FINISHED"):
    client = MlflowClient(uri)
    parent = client.get_run(pipeline_run_id(uri, RECIPE, key))
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`qwen_core.stage` = '{stage}'"
    (run,) = client.search_runs([parent.info.experiment_id], query)
    assert run.info.status == parent.info.status == status
    assert run.data.params == parent.data.params == {"pack.max_seq_len": "77"} and run.data.tags["some"] == "tag"
    assert run.data.metrics["loss"] == 2.0 and run.data.metrics["tokens"] == 7
    assert parent.data.metrics == {"data/tokens": 7.0, "time/pack_seconds": 1.5}
    assert [i.dataset.digest for i in run.inputs.dataset_inputs] == ["f" * 16]
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"plots", "tables", "note.md"}
    return run


def test_a_stage_begins_and_ends_without_mlflow_and_the_next_one_tells_its_story(mlflow_uri, switch, spool, capsys):
    switch.is_away = True
    began = time.time()
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as run:
        assert not run.is_known and run.run_id.startswith("pending-") and run.parent_id == ""
        tell(run)
    told = capsys.readouterr().out
    assert "[pack] goes on without MLflow" in told and f"records wait in {spool}/" in told
    switch.is_away = False
    with begin_stage_run(mlflow_uri, RECIPE, "other", "ingest", "f2", spool):
        assert not list(outboxes(spool))
    found = check_told(mlflow_uri)
    assert began - 1 < found.info.start_time / 1000 < found.info.end_time / 1000 < time.time()
    assert any(name.startswith("system/") for name in found.data.metrics)


def test_records_of_a_pause_are_sent_by_the_stage_itself_in_order(mlflow_uri, switch, spool):
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as run:
        assert run.is_known
        run.set_tags({"some": "earlier"})
        switch.is_away = True
        run.set_tags({"some": "older"})
        tell(run)
        switch.is_away = False
    assert not list(outboxes(spool))
    check_told(mlflow_uri)


def test_a_stage_that_ends_while_mlflow_is_away_fails_nothing_and_a_retry_goes_on_in_its_run(mlflow_uri, switch, spool):
    with pytest.raises(ZeroDivisionError), begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as run:
        switch.is_away = True
        _ = 1 / 0
    switch.is_away = False
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as again:
        assert again.run_id == run.run_id
        tell(again)
    check_told(mlflow_uri)


def test_a_run_without_an_id_that_was_killed_is_found_by_its_retry(mlflow_uri, switch, spool, tmp_path):
    switch.is_away = True
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as run:
        log = MetricLog(run, tmp_path / "state", interval_seconds=0.01)
        log.log({"train/loss": 1.0}, 4)
        assert not log.close(0.05)
    switch.is_away = False
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as again:
        log = MetricLog(again, tmp_path / "state", interval_seconds=0.01)
        assert log.close(10)
    points = MlflowClient(mlflow_uri).get_metric_history(again.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(4, 1.0)]


def test_points_outlive_the_folder_that_they_waited_in(mlflow_uri, switch, spool, tmp_path):
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pretrain", "f1", spool) as run:
        switch.is_away = True
        log = MetricLog(run, tmp_path / "state", interval_seconds=0.01)
        for step in range(1000):
            log.log({"train/loss": 2.0 - step / 1000, "train/nan": float("nan")}, step, seconds=1000.0 + step)
        assert not log.close(0.05)
        assert keep_waiting(run, tmp_path / "state") == 1000
        assert not list((tmp_path / "state").iterdir())
    switch.is_away = False
    assert send_all(spool, mlflow_uri) >= 1 and not list(outboxes(spool))
    points = MlflowClient(mlflow_uri).get_metric_history(run.run_id, "train/loss")
    assert [(p.step, p.timestamp) for p in points] == [(step, (1000 + step) * 1000) for step in range(1000)]


def test_ten_minutes_without_mlflow_cost_few_tries_and_no_record(mlflow_uri, switch, spool, monkeypatch):
    """A clock that only the test moves: 600 s, a figure every five."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stage_run, "_AGAIN_SECONDS", 10.0)
    monkeypatch.setattr(stage_run, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as run:
        switch.is_away, before = True, switch.asked
        for second in range(0, 600, 5):
            clock.now += 5.0
            run.log_metrics({"loss": float(second)}, step=second)
        assert len(Outbox(spool, run.key).waiting()) == 120
        # the thread that measures the machine may add a try
        assert 50 <= switch.asked - before <= 65
        switch.is_away = False
        clock.now += 10.0
    points = MlflowClient(mlflow_uri).get_metric_history(run.run_id, "loss")
    assert [point.step for point in points] == list(range(0, 600, 5)) and not list(outboxes(spool))


def test_what_mlflow_refuses_for_good_stops_no_stage(mlflow_uri, spool, caplog):
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as run:
        run.log_metrics({"a name with a % sign": 1.0}, 0)
        run.log_metrics({"fine": 1.0}, 0)
    client = MlflowClient(mlflow_uri)
    assert "MLflow refuses metrics of 'pack'" in caplog.text
    assert client.get_run(run.run_id).data.metrics["fine"] == 1.0 and not list(outboxes(spool))


def test_a_record_that_was_sent_twice_is_there_once(mlflow_uri, spool):
    with begin_stage_run(mlflow_uri, RECIPE, "key", "pack", "f1", spool) as run:
        write = writes.metrics({"loss": 1.0}, 2)
        for _ in range(3):
            run.write(write)
            run.write(writes.datasets([{"name": "d", "digest": "1", "source_type": "local", "source": "s"}], "input"))
    client = MlflowClient(mlflow_uri)
    assert len(client.get_metric_history(run.run_id, "loss")) == 1
    assert len(client.get_run(run.run_id).inputs.dataset_inputs) == 1


@pytest.mark.slow
def test_a_real_server_may_be_killed_before_and_during_and_at_the_end_of_stages(tmp_path, monkeypatch):
    """The outages last seconds, not ten minutes: while it is away nothing but the number of small files grows."""
    from real_server import RealServer

    monkeypatch.setattr(runs, "_START_SECONDS", 2.0)
    monkeypatch.setattr(runs, "_END_SECONDS", 2.0)
    monkeypatch.setattr(stage_run, "_AGAIN_SECONDS", 0.5)
    spool, server = str(tmp_path / "store" / "spool"), RealServer(tmp_path)
    server.start()
    try:
        with begin_stage_run(server.uri, RECIPE, "ends", "pack", "f1", spool) as ends:
            server.kill()
            tell(ends)
        with begin_stage_run(server.uri, RECIPE, "begins", "pack", "f1", spool) as begins:
            tell(begins)
            assert not begins.is_known
            server.start()
        with begin_stage_run(server.uri, RECIPE, "during", "pack", "f1", spool) as during:
            server.kill()
            tell(during)
            server.start()
        for key in ("ends", "begins", "during"):
            check_told(server.uri, key)
        assert not list(outboxes(spool))
    finally:
        server.kill()
