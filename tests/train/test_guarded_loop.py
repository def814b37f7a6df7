"""The whole loop over bad data, with an engine of one number: it goes back, passes over, and resumes alike anywhere."""

import contextlib
import copy
import math
from types import SimpleNamespace

import pytest
import torch

from qwen_core.config.guards import Guards as GuardSettings
from qwen_core.config.training import Pretrain
from qwen_core.data.packed import indices_from
from qwen_core.errors import DivergedError
from qwen_core.parallel.engine import Batch, Step
from qwen_core.parallel.shard import ALONE
from qwen_core.tracking.spool import MetricLog
from qwen_core.train.events import EventLog
from qwen_core.train.loop import Loop
from qwen_core.train.meter import Meter
from tests.tracking.fake_server import FakeServer

SETTINGS = Pretrain(
    max_steps=60,
    micro_batch_size=4,
    global_batch_size=4,
    log_every_steps=1,
    warmup_steps=0,
    min_validation_points=4,
    guards=GuardSettings(
        grace_steps=5, max_bad_steps=3, rollback_distance_steps=5, rollback_skip_steps=0, max_rollbacks=2
    ),
)
SEQUENCES = 1000


class KilledError(Exception):
    """The process dies here."""


class OneNumber:
    """An engine whose model is one number that is drawn to its data; also a keeper of checkpoints, and a task."""

    shard, device = ALONE, torch.device("cpu")

    def __init__(self, bad_data_steps=()):
        self.weight, self.saved, self.killed_at, self.seen = 0.0, {}, None, []
        self.values = {index: 1.0 + index / SEQUENCES for index in range(SEQUENCES)}
        for step in bad_data_steps:
            self.values[int(indices_from(0, 4 * step, 4, SEQUENCES)[1])] = math.nan

    def step(self, batches, criterion, *, rate, accept):
        if len(self.seen) == self.killed_at:
            raise KilledError
        indices = batches[0].input_ids[:, 0].tolist()
        self.seen.append(indices)
        values = [self.values[index] for index in indices]
        loss = sum((self.weight - value) ** 2 for value in values) / 4
        gradient = sum(2 * (self.weight - value) for value in values) / 4
        if is_good := accept(loss):
            self.weight -= 0.1 * rate * gradient
        return Step(loss, {}, 4, abs(gradient), is_good)

    def report(self):
        return {}

    def due(self, step, validation_loss=None):
        return step % 10 == 0

    def save(self, engine, step, state, validation_loss=None):
        self.saved[step] = copy.deepcopy((self.weight, state))

    def steps(self):
        return sorted(self.saved)

    def go_back(self, engine, step):
        self.saved = {at: one for at, one in self.saved.items() if at <= step}
        self.weight, state = copy.deepcopy(self.saved[step])
        return state

    def __len__(self):
        return SEQUENCES

    def batch(self, indices):
        ids = torch.tensor(indices)[:, None]
        return Batch(ids, ids, None, float(len(indices)), len(indices))

    def objective(self, losses, batch):
        raise NotImplementedError

    def validate(self, model):
        return {"loss": self.weight}

    def describe(self, indices):
        return [f"document {index}" for index in indices]


def attempt(model: OneNumber, server: FakeServer, spool) -> list:
    """Train from the last checkpoint on, to the end or to the death; return the events."""
    metric_log = MetricLog(server, spool, interval_seconds=0.001)
    events = []
    signals = SimpleNamespace(
        events=EventLog("pretrain", [events.append]),
        around=lambda step: contextlib.nullcontext(),
        rewind=metric_log.rewind,
    )
    loop = Loop(
        model, model, SETTINGS, 0, Meter(sequences=SEQUENCES), signals, model, lambda f, s: metric_log.log(f, s)
    )
    try:
        model.weight, first = 0.0, max(model.saved, default=0)
        loop.run(loop.restore(model.go_back(model, first)) if first else 0)
    finally:
        metric_log.close(30)
    return events


def test_bad_data_are_passed_over_after_going_back(tmp_path):
    """Data of steps 30 to 34 are bad: three dropped, back to 20, which reads 33 and 34, drops them, and goes on."""
    model = OneNumber(range(30, 35))
    events = attempt(model, FakeServer(), tmp_path)
    told = [(event.kind, event.step) for event in events]
    assert told == [("loss_not_finite", step) for step in (30, 31, 32)] + [
        ("rollback", 32),
        ("loss_not_finite", 20),
        ("loss_not_finite", 21),
    ]
    assert events[3].details["data_goes_on_at_step"] == 33
    assert len(events[0].details["documents"]) == 4
    assert 1.3 < model.weight < 1.7
    seen = [tuple(indices) for indices in model.seen]
    assert len(seen) == 33 + 40 and len(set(seen)) == len(seen)  # no batch is read twice


def test_wherever_a_run_dies_it_ends_alike_and_no_point_is_logged_twice(tmp_path):
    whole, server = OneNumber(range(30, 35)), FakeServer()
    attempt(whole, server, tmp_path / "whole")
    for death in (3, 31, 33, 36, 70):
        model, again = OneNumber(range(30, 35)), FakeServer()
        model.killed_at = death
        with pytest.raises(KilledError):
            attempt(model, again, tmp_path / str(death))
        model.killed_at = None
        attempt(model, again, tmp_path / str(death))
        assert model.weight == whole.weight, death
        for name in ("train/loss", "validation/loss"):
            curve = again.curve(name)
            assert sorted(curve) == sorted(server.curve(name)), (death, name)
            assert len(set(curve)) == len(curve)


def test_data_that_stay_bad_end_the_run_with_what_to_do(tmp_path):
    model = OneNumber(range(30, 100))
    with pytest.raises(DivergedError, match=r"after 2 rollbacks .* See the documents named in the events"):
        attempt(model, FakeServer(), tmp_path)
