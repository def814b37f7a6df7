"""Reading runs for the doctor: from MLflow's databases and folders, by page and by key, and from files."""

import json
import math

import pytest
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from qwen_core.config import load_recipe
from qwen_core.errors import InputError, PlatformError
from qwen_core.tracking.doctor.address import address_of
from qwen_core.tracking.doctor.causes import diagnose
from qwen_core.tracking.doctor.curves import read_runs
from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.runs import begin_stage_run
from tests.tracking import doctor_runs

ID = "0123456789abcdef0123456789abcdef"


def store(uri, run, name="planted", experiment="doctor"):
    """Log a run of `doctor_runs` into MLflow; return its id."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifact_location="/nowhere")
    started = int(doctor_runs.START * 1000)
    run_id = client.create_run(experiment_id, run_name=name, tags=dict(run.tags), start_time=started).info.run_id
    client.log_batch(run_id, params=[Param(key, value) for key, value in run.params.items()])
    points = [
        Metric(one.name, value, int(when * 1000), int(step))
        for one in run.curves.values()
        for step, value, when in zip(one.steps.tolist(), one.values.tolist(), one.seconds.tolist(), strict=True)
    ]
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])
    client.set_terminated(run_id, run.status)
    return run_id


def _found(runs):
    return [[one.cause for one in diagnose(Evidence(run))] for run in runs]


@pytest.mark.parametrize(
    "target, uri, ids, experiment",
    [
        (ID, None, (ID,), None),
        (f"runs:/{ID}/model", None, (ID,), None),
        (f"http://h:5000/#/experiments/1/runs/{ID}", "http://h:5000", (ID,), "1"),
        (f"http://h:5000/#/experiments/1/runs/{ID}/model-metrics", "http://h:5000", (ID,), "1"),
        (f"https://h/mlflow/#/experiments/22/runs/{ID}/artifacts?x=1", "https://h/mlflow", (ID,), "22"),
        ("http://h:5000/#/experiments/7", "http://h:5000", (), "7"),
        ("http://h:5000/", "http://h:5000", (), None),
        (f"http://h/#/compare-runs?runs=%5B%22{ID}%22,%22b%22%5D&experiments=[%221%22]", "http://h", (ID, "b"), None),
        (f"https://h/experiments/3/runs/{ID}", "https://h", (ID,), "3"),
        (f"postgresql://u@h/db#{ID}", "postgresql://u@h/db", (ID,), None),
    ],
)
def test_address_is_understood(target, uri, ids, experiment):
    address = address_of(target)
    assert (address.tracking_uri, address.run_ids, address.experiment_id) == (uri, ids, experiment)


def test_word_that_is_no_id_is_a_name_and_a_missing_path_is_told(tmp_path):
    assert address_of("demo-20260102-030405-9f3a").name == "demo-20260102-030405-9f3a"
    with pytest.raises(InputError, match=r"there is no file or folder .*gone\.jsonl"):
        address_of("gone.jsonl")
    with pytest.raises(InputError, match="there is no database"):
        address_of(f"sqlite:///{tmp_path}/gone.db")
    assert not (tmp_path / "gone.db").exists()
    with pytest.raises(InputError, match=r"holds no history: looked for history\.jsonl"):
        address_of(str(tmp_path))
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputError, match="is no history"):
        address_of(str(tmp_path / "a.csv"))


def test_history_comes_whole_with_nan_infinity_settings_and_status(mlflow_uri):
    planted = doctor_runs.diverged(0)
    planted.curves["train/grad_norm"].values[-1] = math.inf
    run_id = store(mlflow_uri, planted)
    (run,) = read_runs(run_id, mlflow_uri)
    assert run.status == "FAILED" and run.params["pretrain.max_steps"] == "1000" and run.stage == "pretrain"
    for name, curve in planted.curves.items():
        assert len(run.curves[name]) == len(curve)
        assert run.curves[name].is_finite.sum() == curve.is_finite.sum()
    assert run.curves["train/grad_norm"].values[-1] == math.inf
    assert _found([run]) == [["diverged"]]


def test_metric_that_was_asked_for_is_read_whatever_its_name(mlflow_uri):
    odd = doctor_runs.curve("figures/B", range(10), range(10))
    run_id = store(mlflow_uri, doctor_runs.Parts(0).run(odd))
    assert "figures/B" in read_runs(run_id, mlflow_uri)[0].others
    assert len(read_runs(run_id, mlflow_uri, ["figures/B"])[0].curves["figures/B"]) == 10


def test_pieces_of_a_resumed_training_are_found_in_the_experiment(mlflow_uri):
    planted = doctor_runs.run_per_resume(0)
    for piece in planted.siblings:
        store(mlflow_uri, piece, piece.name)
    store(mlflow_uri, doctor_runs.healthy(3), "of other settings")
    run_id = store(mlflow_uri, planted, "middle")
    (run,) = read_runs(run_id, mlflow_uri)
    assert len(run.siblings) == 2 and _found([run]) == [["run_per_resume"]]


def test_validation_that_the_trainer_logged_into_a_run_of_its_own_is_found_from_both_sides(mlflow_uri):
    planted = doctor_runs.validation_in_another_run(0)
    trained = store(mlflow_uri, planted, "once")
    dot = store(mlflow_uri, planted.siblings[0], "capable-auk-759")
    for run_id, other in ((trained, dot), (dot, trained)):
        runs = read_runs(run_id, mlflow_uri)
        assert _found(runs) == [["validation_in_another_run"]] and runs[0].siblings[0].run_id == other


def test_run_key_and_pipeline_run_lead_to_the_training_stages(mlflow_uri):
    recipe = load_recipe("demo")
    with begin_stage_run(mlflow_uri, recipe, "my-key", "ingest", "f0") as stage:
        stage.log_metrics({"rows": 5.0}, 0)
    for number, name in enumerate(("pretrain", "sft")):
        with begin_stage_run(mlflow_uri, recipe, "my-key", name, f"f{number + 1}") as stage:
            for step in range(12):
                stage.log_metrics({"train/loss": 3 - 0.1 * step, "validation/loss": 3.1 - 0.1 * step}, step)
            stage.log_result({"last_validation_loss": 2.0})
    parent = stage.parent_id
    by_key, by_id = read_runs("my-key", mlflow_uri), read_runs(parent, mlflow_uri)
    assert sorted(run.stage for run in by_key) == ["pretrain", "sft"]
    assert [run.stage for run in by_id] == ["pretrain", "sft"]
    assert _found(by_id) == [[], []]


def test_database_with_one_run_needs_no_id_and_with_more_lists_them(mlflow_uri, tmp_path):
    only = store(mlflow_uri, doctor_runs.healthy_keras(0), "alone")
    assert [run.run_id for run in read_runs(mlflow_uri, "unused")] == [only]
    assert [run.run_id for run in read_runs(str(tmp_path / "mlflow.db"), "unused")] == [only]
    assert [run.run_id for run in read_runs(str(tmp_path), "unused")] == [only]
    other = store(mlflow_uri, doctor_runs.healthy_keras(1), "second")
    with pytest.raises(InputError, match="2 runs with metrics") as told:
        read_runs(mlflow_uri, "unused")
    assert only in str(told.value) and other in str(told.value)
    assert read_runs("second", mlflow_uri)[0].run_id == other


def test_unknown_id_and_name_are_told_with_what_there_is(mlflow_uri):
    run_id = store(mlflow_uri, doctor_runs.healthy_keras(0), "fine-run")
    with pytest.raises(InputError, match=f"no run {ID}") as told:
        read_runs(ID, mlflow_uri)
    assert run_id in str(told.value)
    with pytest.raises(InputError, match=r"no run key and no run with the name 'fine-rum'.*the nearest: fine-run"):
        read_runs("fine-rum", mlflow_uri)


def test_run_without_metrics_is_told_so(mlflow_uri):
    client = MlflowClient(tracking_uri=mlflow_uri)
    run_id = client.create_run("0", run_name="empty").info.run_id
    with pytest.raises(InputError, match=r"has no metrics.*report_to=mlflow"):
        read_runs(run_id, mlflow_uri)
    with pytest.raises(InputError, match=r"no runs? with metrics"):
        read_runs(mlflow_uri, mlflow_uri)


def test_server_that_does_not_answer_is_told_within_seconds():
    with pytest.raises(PlatformError, match=r"http://127\.0\.0\.1:9 .*nothing answers.*--tracking-uri"):
        read_runs(ID, "http://127.0.0.1:9")


def test_folder_of_mlflow_is_read_by_store_by_experiment_and_by_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "mlruns"
    run_id = store(folder.as_uri(), doctor_runs.evaluated_once_at_end(0))
    experiment = next(folder.glob(f"*/{run_id}")).parent
    for target in (folder, tmp_path, experiment, experiment / run_id):
        assert _found(read_runs(str(target), "unused")) == [["evaluated_once_at_end"]]


def test_our_history_is_read_without_mlflow_and_a_torn_last_line_is_left_out(tmp_path):
    lines = [json.dumps({"step": step, "train/loss": 9 - step / 10, "note": "x"}) for step in range(10)]
    lines.append(json.dumps({"step": 9, "validation/loss": float("nan")}))
    file = tmp_path / "history.jsonl"
    file.write_text("\n".join(lines) + '\n{"step": 10, "train/lo', encoding="utf-8")
    (run,) = read_runs(str(tmp_path), "unused")
    assert run.curves["train/loss"].steps.tolist() == list(range(10))
    assert math.isnan(run.curves["validation/loss"].values[0]) and "note" not in run.curves
    file.write_text('{"step": 1, "a": 2}\n{oops}\n{"step": 2}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2 is no JSON"):
        read_runs(str(file), "unused")
    file.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="holds no figures"):
        read_runs(str(file), "unused")


def test_state_of_the_trainer_is_read_with_its_settings(tmp_path):
    log = [
        {"step": step, "epoch": step / 50, "loss": 3 - step / 100, "learning_rate": 1e-5} for step in range(5, 101, 5)
    ]
    log.append({"step": 100, "eval_loss": 2.1, "eval_runtime": 3.0})
    state = {"log_history": log, "eval_steps": 500, "max_steps": 100, "logging_steps": 5, "train_batch_size": 4}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    (run,) = read_runs(str(tmp_path / "trainer_state.json"), "unused")
    evidence = Evidence(run)
    assert evidence.tool == "trainer" and evidence.setting("eval_steps") == ("eval_steps", 500.0)
    assert _found([run]) == [["interval_longer_than_run"]]


def test_log_of_llamafactory_is_read_by_its_own_step(tmp_path):
    rows = [
        {"current_steps": step, "total_steps": 40, "loss": 2 - step / 50, "eval_loss": None} for step in range(1, 41)
    ]
    (tmp_path / "trainer_log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (run,) = read_runs(str(tmp_path), "unused")
    assert run.curves["loss"].steps.tolist() == list(range(1, 41)) and "eval_loss" not in run.curves
