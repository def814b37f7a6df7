"""A worker's whole work, on two processes: train, die, resume, leave a model."""

import json
from pathlib import Path

import pytest
import torch

from qwen_core.config.guards import Guards
from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Pretrain
from qwen_core.model import load_pretrained
from qwen_core.train import worker
from tests.parallel.spread import spread
from tests.train.worker_runs import run, write_packed

pytestmark = pytest.mark.slow

SETTINGS = Pretrain(
    max_steps=6,
    warmup_steps=2,
    micro_batch_size=2,
    global_batch_size=8,
    log_every_steps=1,
    min_validation_points=3,
    checkpoint_every_steps=2,
    precision="fp32",
)
ZERO = Parallel(num_workers=2, zero_stage=3)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """All runs, in one start of the processes."""
    home = tmp_path_factory.mktemp("runs")
    write_packed(home / "train.arrow", 20, 1)
    write_packed(home / "validation.arrow", 4, 2)
    diverging = SETTINGS.model_copy(update={"learning_rate": 1e30, "guards": Guards(max_bad_steps=1, max_rollbacks=0)})
    bf16 = SETTINGS.model_copy(update={"precision": "bf16", "use_best_checkpoint": True, "batch_ramp_start": 4})
    bf16 = bf16.model_copy(update={"batch_ramp_steps": 3, "schedule": "wsd"})
    back = Guards(max_bad_steps=1, rollback_distance_steps=0, rollback_skip_steps=0)
    runs = [
        ("straight", SETTINGS, ZERO, -1, -1),
        ("resumed", SETTINGS, ZERO, 5, -1),
        ("resumed", SETTINGS, ZERO, -1, -1),
        ("best", bf16, ZERO, -1, -1),
        ("diverging", diverging, ZERO, -1, -1),
        ("back", SETTINGS.model_copy(update={"guards": back}), ZERO, -1, 5),
        ("accumulated", SETTINGS.model_copy(update={"micro_batch_size": 1}), ZERO, -1, -1),
        # Last: DeepSpeed's groups of a pipeline stay in the process, and ZeRO alone stumbles over them
        ("pipe", SETTINGS, Parallel(num_workers=2, pipeline=2, zero_stage=1), -1, -1),
    ]
    (home / "reports.json").write_text(json.dumps(spread(run, 2, str(home), runs)))
    return home


def _history(home: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (home / name / "out" / "history.jsonl").read_text().splitlines()]


def _curve(history: list[dict], name: str) -> list[tuple[float, float]]:
    return [(event["step"], event[name]) for event in history if name in event]


@pytest.mark.parametrize("name", ["train/loss", "train/grad_norm", "validation/loss", "train/tokens"])
def test_a_run_that_died_goes_on_bit_for_bit(home, name):
    assert _curve(_history(home, "resumed"), name) == _curve(_history(home, "straight"), name)


def test_the_model_that_is_left_is_the_same_and_opens(home):
    straight, resumed = (load_pretrained(home / name / "out" / "model") for name in ("straight", "resumed"))
    for (name, one), (_, other) in zip(straight.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_ramp_schedule_and_best_checkpoint_work_together(home):
    history = _history(home, "best")
    assert [size for _, size in _curve(history, "train/batch_size")] == [4, 4, 8, 8, 8, 8]
    assert (home / "best" / "out" / "model" / "config.json").is_file()


def test_a_run_that_diverges_tells_the_driver_instead_of_being_started_anew(home):
    reports = json.loads((home / "reports.json").read_text())
    for report in reports:
        assert "training went astray" in report[4][-1]["returned"]
    assert not (home / "diverging" / "out").exists()


def test_a_run_goes_back_to_a_checkpoint_and_passes_over_the_bad_batch(home):
    """Step 5 is bad, the checkpoint of step 4 is gone back to: step 4 reads the data of step 6, then 5 that of 7."""
    losses, straight = (dict(_curve(_history(home, name), "train/loss")) for name in ("back", "straight"))
    assert [losses[step] for step in (1, 2, 3, 4)] == [straight[step] for step in (1, 2, 3, 4)]
    assert sorted(losses) == [1, 2, 3, 4, 5, 6] and losses[5] != straight[5]


@pytest.mark.parametrize("name", ["accumulated", "pipe"])
def test_smaller_passes_and_a_pipeline_train_alike(home, name):
    for curve in ("train/loss", "train/grad_norm", "validation/loss"):
        told, expected = (dict(_curve(_history(home, run), curve)) for run in (name, "straight"))
        assert told == pytest.approx(expected, rel=1e-5), curve


@pytest.mark.parametrize(
    ("machine", "has_bf16", "answer"), [("x86_64", False, False), ("x86_64", True, True), ("arm64", False, True)]
)
def test_a_cpu_without_bf16_is_known(monkeypatch, machine, has_bf16, answer):
    monkeypatch.setattr(worker.platform, "machine", lambda: machine)
    monkeypatch.setattr(worker.torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bf16)
    assert worker.cpu_computes_bf16() is answer
