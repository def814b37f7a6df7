"""Signals put together: what rank 0 tells, and that the others tell nobody."""

import json
from pathlib import Path

import torch
from mlflow.tracking import MlflowClient

from qwen_core.config import load_recipe
from qwen_core.config.guards import Guards as GuardSettings
from qwen_core.tracking.runs import begin_stage_run
from qwen_core.train.events import Event
from qwen_core.train.meter import Meter
from qwen_core.train.signals import Signals
from qwen_core.train.watch import LocalBoard

SETTINGS = GuardSettings(profile_steps=[1, 1])


def signals(run, folder, rank=0) -> Signals:
    meter = Meter(sequences=10)
    return Signals(
        "pretrain", SETTINGS, meter, run=run, state_uri=str(folder), rank=rank, world_size=2, board=LocalBoard(2)
    )


def train(told: Signals) -> None:
    with told:
        told.rewind(0, 0)
        for step in range(3):
            with told.around(step):
                torch.ones(2, 2) @ torch.ones(2, 2)
            told.log({"train/loss": 1.0, "train/epochs": 0.1, "train/tokens_per_second": 5.0}, step + 1)
        told.events.emit(Event("loss_spike", 2, "the loss is 9"))


def test_rank_0_brings_metrics_events_and_profiles_to_mlflow(mlflow_uri, tmp_path, capsys):
    with begin_stage_run(mlflow_uri, load_recipe("demo"), "key", "pretrain", "f1") as run:
        train(signals(run, tmp_path))
    client = MlflowClient(mlflow_uri)
    assert [point.step for point in client.get_metric_history(run.run_id, "train/loss")] == [1, 2, 3]
    metrics = client.get_run(run.run_id).data.metrics
    assert metrics["events/loss_spike"] == metrics["events/profile"] == 1
    artifacts = {one.path for one in client.list_artifacts(run.run_id, "profiles/step_1")}
    assert artifacts == {"profiles/step_1/trace.json.gz", "profiles/step_1/operators.txt"}
    table = json.loads(Path(client.download_artifacts(run.run_id, "tables/events.json")).read_text())
    assert [row[3] for row in table["data"]] == ["profile", "loss_spike"]
    assert "loss_spike at step 2: the loss is 9" in capsys.readouterr().out
    assert list((tmp_path / "spool").iterdir()) == []


def test_other_ranks_tell_nobody(tmp_path, capsys):
    train(signals(None, tmp_path, rank=1))
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


def test_without_a_run_a_profile_lies_beside_the_checkpoints(tmp_path, capsys):
    train(signals(None, tmp_path))
    assert (tmp_path / "profiles/step_1/operators.txt").is_file() and "profile at step 1" in capsys.readouterr().out
