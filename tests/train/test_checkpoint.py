"""Checkpoints of one worker: committed, verified, kept, refused."""

import errno
import json
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen_core.errors import ArtifactError
from qwen_core.train.checkpoint import Checkpoints
from qwen_core.train.checkpoint_folder import CheckpointRoot

IDENTITY = {"model": {"hidden_size": 32, "num_hidden_layers": 2}, "data": "a1", "tokenizer": "b2"}


class _Inner:
    """As much of DeepSpeed's engine as checkpoints ask for."""

    def __init__(self):
        self.module = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.module.parameters(), 0.1)
        self.checkpoint_engine = None

    def zero_optimization(self):
        return False

    def zero_optimization_stage(self):
        return 0


class Engine:
    """One matrix, and two files: what DeepSpeed would hand to its checkpoint engine."""

    def __init__(self):
        self.deepspeed = _Inner()
        self.weight = torch.zeros(1000)

    def save(self, folder, state):
        for name in ("a", "b"):
            self.deepspeed.checkpoint_engine.save({name: self.weight}, f"{folder}/state/{name}_states.pt")

    def load(self, folder):
        self.weight = self.deepspeed.checkpoint_engine.load(f"{folder}/state/a_states.pt")["a"]
        return {}


def open_at(uri, identity=IDENTITY, **settings):
    settings = {"every_steps": 10, **settings}
    return Checkpoints(str(uri), identity=identity, plan={"zero_stage": 3}, **settings)


def train(uri, *steps, losses=(), **settings):
    """Take checkpoints at some steps, whose weights are the step's number."""
    engine, keeper = Engine(), open_at(uri, **settings)
    for number, step in enumerate(steps):
        engine.weight = torch.full((1000,), float(step))
        keeper.save(engine, step, {"tokens": step * 7}, losses[number] if losses else None)
    keeper.finish()


def restored(uri, **settings):
    engine = Engine()
    state = open_at(uri, **settings).restore(engine)
    return state, float(engine.weight[0])


def folders(uri):
    return sorted(path.name.split("-")[1].lstrip("0") for path in Path(uri).iterdir())


def latest(uri):
    return max(Path(uri).iterdir())


def test_latest_checkpoint_is_restored_with_the_loops_state(tmp_path, capsys):
    train(tmp_path, 10, 20)
    assert restored(tmp_path) == ({"tokens": 140, "step": 20}, 20.0)
    assert "resumed at step 20 from" in capsys.readouterr().out


def test_random_numbers_go_on_where_they_were(tmp_path):
    def draw():
        return [random.random(), float(np.random.rand()), float(np.random.standard_normal()), float(torch.rand(1))]

    np.random.standard_normal()  # draws two, and keeps the second
    train(tmp_path, 10)
    expected = draw()
    draw()
    restored(tmp_path)
    assert draw() == expected


def test_new_run_finds_nothing(tmp_path):
    assert restored(tmp_path / "never")[0] is None


def test_killed_first_save_starts_anew(tmp_path, capsys):
    train(tmp_path, 10)
    (latest(tmp_path) / "manifest.json").unlink()
    assert restored(tmp_path)[0] is None
    assert "1 checkpoint(s) were never completed" in capsys.readouterr().out


def _flip(path, position=-20):
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


def _edit(path):
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {"step": 30}))


SHARD = "engine/state/b_states.pt"
DAMAGES = {
    "flipped bit": (SHARD, lambda path: _flip(path, 200), "CRC-32 does not match"),
    "truncated": (SHARD, lambda path: os.truncate(path, 100), "has 100 bytes instead of"),
    "empty": (SHARD, lambda path: os.truncate(path, 0), "has 0 bytes instead of"),
    "missing": (SHARD, Path.unlink, f"{SHARD} is missing"),
    "loop's state": ("loop.json", lambda path: path.write_text('{"step": 99, "tokens": 1}'), "loop.json"),
    "random numbers": ("worker-00000.pt", _flip, "worker-00000.pt"),
    "garbage manifest": ("manifest.json", lambda path: path.write_bytes(b"\x00\xff garbage"), "manifest.json"),
    "half a manifest": ("manifest.json", lambda path: os.truncate(path, 300), "manifest.json"),
    "empty manifest": ("manifest.json", lambda path: path.write_text("{}"), "manifest.json"),
    "edited manifest": ("manifest.json", _edit, "its checksum does not match"),
    "no longer complete": ("manifest.json", Path.unlink, "never completed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_recognised_and_the_one_before_used(tmp_path, capsys, damage):
    file, spoil, told = DAMAGES[damage]
    train(tmp_path, 10, 20)
    spoil(latest(tmp_path) / file)
    assert restored(tmp_path) == ({"tokens": 70, "step": 10}, 10.0)
    assert told in capsys.readouterr().out


def test_run_goes_on_over_a_damaged_checkpoint_and_then_deletes_it(tmp_path):
    train(tmp_path, 10, 20)
    bad = latest(tmp_path)
    _flip(bad / SHARD, 200)
    engine, keeper = Engine(), open_at(tmp_path)
    assert keeper.restore(engine)["step"] == 10
    keeper.save(engine, 20, {"tokens": 140})
    keeper.finish()
    assert not bad.exists() and folders(tmp_path) == ["10", "20"]
    assert restored(tmp_path)[0]["step"] == 20


def test_only_damaged_checkpoints_are_refused_with_the_remedy(tmp_path):
    train(tmp_path, 10, 20)
    for folder in tmp_path.iterdir():
        _flip(folder / SHARD, 200)
    with pytest.raises(ArtifactError, match=r"all 2 checkpoints .* damaged, the latest of step 20.*delete") as told:
        restored(tmp_path)
    assert str(tmp_path) in str(told.value)


def test_fault_of_the_disk_is_no_damage(tmp_path, monkeypatch):
    train(tmp_path, 10)

    def fail(*arguments):
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(CheckpointRoot, "fault_of", fail)
    with pytest.raises(OSError, match="disk"):
        restored(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": IDENTITY["model"] | {"hidden_size": 64}}, "model.hidden_size: the checkpoint has 32, this run 64"),
        ({"data": "other"}, "data: the checkpoint has 'a1', this run 'other'"),
        ({"tokenizer": "other"}, "tokenizer: the checkpoint has 'b2', this run 'other'"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, change, told):
    train(tmp_path, 10)
    with pytest.raises(ArtifactError, match="of another run") as refused:
        restored(tmp_path, identity=IDENTITY | change)
    assert told in str(refused.value) and "delete" in str(refused.value)


class _Bomb:
    def __reduce__(self):
        return print, ("pickled code ran",)


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Engine, "save", lambda self, folder, state: self.deepspeed.checkpoint_engine.save(
        {"a": _Bomb()}, f"{folder}/state/a_states.pt"))  # fmt: skip
    train(tmp_path, 10)
    with pytest.raises(ArtifactError, match=r"(?s)more than tensors and plain values.*print"):
        restored(tmp_path)
    assert "pickled code ran" not in capsys.readouterr().out


def test_last_and_best_are_kept(tmp_path):
    train(tmp_path, 1, 2, 3, 4, 5, losses=(3.0, 1.0, 2.0, 2.5, 2.4), keep_last=2, keep_best=True)
    assert folders(tmp_path) == ["2", "4", "5"]
    engine = Engine()
    assert open_at(tmp_path).restore_best(engine)["step"] == 2 and float(engine.weight[0]) == 2.0


def test_what_killed_starts_left_is_deleted(tmp_path):
    train(tmp_path, 10)
    (tmp_path / "step-00000015-dead0000").mkdir()
    (tmp_path / "notes").mkdir()
    train(tmp_path, 20)
    assert sorted(path.name.split("-")[0] + path.name[5:13].lstrip("0") for path in tmp_path.iterdir()) == [
        "notes",
        "step10",
        "step20",
    ]


def test_checkpoints_are_due_by_steps_seconds_and_best_loss(tmp_path):
    keeper = open_at(tmp_path, keep_best=True)
    assert [step for step in range(1, 31) if keeper.due(step)] == [10, 20, 30]
    assert keeper.due(3, 2.0) and not keeper.due(3, float("nan"))
    keeper.save(Engine(), 3, {}, 2.0)
    assert keeper.due(4, 1.9) and not keeper.due(4, 2.1)
    keeper.finish()
    assert not open_at(tmp_path, every_seconds=1000).due(3) and open_at(tmp_path, every_seconds=1e-9).due(3)
    resumed = open_at(tmp_path, keep_best=True)
    resumed.restore(Engine())
    assert not resumed.due(4, 2.1)


def test_training_goes_on_while_files_are_written(tmp_path, monkeypatch):
    may_write, write = threading.Event(), CheckpointRoot.write

    def wait_first(*arguments):
        assert may_write.wait(30)
        return write(*arguments)

    monkeypatch.setattr(CheckpointRoot, "write", wait_first)
    engine, keeper = Engine(), open_at(tmp_path)
    engine.weight = torch.full((1000,), 10.0)
    keeper.save(engine, 10, {"tokens": 70})
    engine.weight.fill_(99.0)  # the next steps
    may_write.set()
    keeper.save(engine, 20, {"tokens": 140})  # waits for the first
    assert folders(tmp_path)[0] == "10" and (min(tmp_path.iterdir()) / "manifest.json").is_file()
    keeper.finish()
    _flip(latest(tmp_path) / SHARD, 200)
    assert restored(tmp_path) == ({"tokens": 70, "step": 10}, 10.0)


def test_full_disk_stops_the_training_only_at_the_third_time(tmp_path, monkeypatch, capsys):
    train(tmp_path, 10)

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        engine, keeper = Engine(), open_at(tmp_path)
        keeper.save(engine, 20, {})
        keeper.save(engine, 30, {})
        keeper.save(engine, 40, {})
        assert capsys.readouterr().out.count("training goes on, the one before it stays") == 2
        with pytest.raises(ArtifactError, match=r"step 40 .*No space left.*check space"):
            keeper.finish()
    assert restored(tmp_path)[0]["step"] == 10


def test_ray_is_told_of_each_checkpoint(tmp_path):
    told = []
    train(tmp_path, 10, 20, report=lambda step, uri: told.append((step, uri)))
    assert [step for step, _ in told] == [10, 20]
    assert all((Path(uri) / "manifest.json").is_file() for _, uri in told)


def test_a_step_can_be_loaded_to_roll_back(tmp_path):
    engine, keeper = Engine(), open_at(tmp_path, keep_last=3)
    for step in (10, 20, 30):
        engine.weight = torch.full((1000,), float(step))
        keeper.save(engine, step, {"tokens": step})
    assert keeper.steps() == [10, 20, 30]
    assert keeper.go_back(engine, 20) == {"tokens": 20, "step": 20} and float(engine.weight[0]) == 20.0
    with pytest.raises(ArtifactError, match="no checkpoint of step 25"):
        keeper.go_back(engine, 25)
    keeper.save(engine, 30, {"tokens": 31})
    keeper.finish()
    assert folders(tmp_path) == ["10", "20", "30"] and restored(tmp_path)[0]["tokens"] == 31


def test_after_a_rollback_the_best_of_what_is_left_is_to_be_beaten(tmp_path):
    engine, keeper = Engine(), open_at(tmp_path, every_steps=1000, keep_last=3, keep_best=True)
    for step, loss in ((10, 3.0), (20, 2.5), (30, 1.0)):
        keeper.save(engine, step, {}, loss)
    keeper.steps()
    assert not keeper.due(31, 2.0)
    keeper.go_back(engine, 20)
    assert keeper.due(31, 2.0) and not keeper.due(31, 2.6)


@pytest.mark.slow
def test_object_store_holds_checkpoints_as_a_disk_does(object_store, capsys):
    train("s3://runs/state/checkpoints", 10, 20, 30)
    root = CheckpointRoot("s3://runs/state/checkpoints")
    assert [one.step for one in root.find()] == [30, 20]
    root.write(root.find()[0].name, SHARD, lambda out: out.write(b"something else"))
    assert restored("s3://runs/state/checkpoints") == ({"tokens": 140, "step": 20}, 20.0)
    assert "has 14 bytes instead of" in capsys.readouterr().out
