"""Points that MLflow did not take while the workers ran are sent before the stage is committed."""

from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient

from qwen_core.config import load_recipe
from qwen_core.errors import PlatformError
from qwen_core.jobs import training
from qwen_core.tracking.runs import begin_stage_run
from qwen_core.tracking.spool import MetricLog, spool_folder


def test_waiting_points_are_sent_or_the_stage_fails(tmp_path, mlflow_uri, monkeypatch):
    context = SimpleNamespace(attempt=SimpleNamespace(state_uri=str(tmp_path / "state")), run=None)
    with begin_stage_run(mlflow_uri, load_recipe("demo"), "key", "pretrain", "f") as run:
        context.run = run
        with monkeypatch.context() as patched:
            patched.setattr("qwen_core.tracking.runs.MlflowClient", _away)
            log = MetricLog(run, spool_folder(context.attempt.state_uri), interval_seconds=0.05)
            log.log({"train/loss": 2.5}, 7)
            assert not log.close(timeout_seconds=0.3)
            patched.setattr(training.MetricLog, "close", lambda self: False)
            with pytest.raises(PlatformError, match="does not take its metrics"):
                training._send_waiting_points(context)
        training._send_waiting_points(context)
        points = MlflowClient(mlflow_uri).get_metric_history(run.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(7, 2.5)]


def _away(*_, **__):
    raise ConnectionError("nobody is there")
