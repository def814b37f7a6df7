"""The loop over a small engine of its own: steps are functions of their number, and bad ones are undone."""

import copy
import math

import pytest
import torch
from torch import nn

from qwen_core.config.guards import Guards
from qwen_core.config.training import Pretrain
from qwen_core.errors import DivergedError
from qwen_core.parallel.engine import Batch, Objective, Step
from qwen_core.parallel.shard import ALONE
from qwen_core.train.events import EventLog
from qwen_core.train.loop import Loop, batches_of, schedule_of
from qwen_core.train.meter import Meter
from qwen_core.train.prefetch import prefetched
from qwen_core.train.schedule import Batches, Schedule

GUARDS = Guards(max_bad_steps=2, rollback_distance_steps=0, rollback_skip_steps=0, max_rollbacks=1, grace_steps=1000)


class Numbers:
    """A task of numbered examples; example `poisoned` has no finite loss."""

    def __init__(self, poisoned=(), size=10):
        self.poisoned, self.read, self.size = set(poisoned), [], size

    def __len__(self):
        return self.size

    def batch(self, indices):
        self.read.append(list(indices))
        ids = torch.tensor(indices)[:, None]
        return Batch(ids, ids, None, float(len(indices)), len(indices))

    def objective(self, losses, batch):
        bad = [index for index in batch.input_ids.flatten().tolist() if index in self.poisoned]
        return Objective(losses.sum() * (math.nan if bad else 1.0))

    def validate(self, model):
        return {"loss": float(model.measure(self.batch([0])).sum())}

    def describe(self, indices):
        return [f"number {index}" for index in indices]


class Small:
    """An engine of one weight per example and plain SGD with noise from torch's generator."""

    def __init__(self):
        self.shard, self.device = ALONE, torch.device("cpu")
        self.model = nn.Embedding(40, 1)
        nn.init.ones_(self.model.weight)

    def step(self, batches, criterion, *, rate, accept=lambda loss: True):
        count = sum(batch.count for batch in batches)
        loss = sum(criterion(self.model(batch.input_ids)[..., 0] ** 2, batch).loss for batch in batches) / count
        is_applied = accept(loss.item())
        if is_applied:
            (grad,) = torch.autograd.grad(loss, [self.model.weight])
            self.model.weight.data -= rate * 0.1 * (grad + 0.01 * torch.randn(grad.shape))
        return Step(loss.item(), {}, int(count), 1.0, is_applied)

    def measure(self, batch):
        return self.model(batch.input_ids)[..., 0].detach() ** 2

    def report(self):
        return {"router/max_load": 1.0}


class Memory:
    """Checkpoints in memory, every second step."""

    def __init__(self):
        self.held = {}

    def due(self, step, validation_loss=None):
        return step % 2 == 0

    def save(self, engine, step, state, validation_loss=None):
        self.held[step] = (engine.model.weight.detach().clone(), copy.deepcopy(state))

    def steps(self):
        return list(self.held)

    def go_back(self, engine, step):
        self.held = {kept: value for kept, value in self.held.items() if kept <= step}
        weight, state = self.held[step]
        engine.model.weight.data.copy_(weight)
        return copy.deepcopy(state)


class Quiet:
    """Signals that only keep events."""

    def __init__(self):
        self.told, self.rewound = [], []
        self.events = EventLog("pretrain", [self.told.append])

    def around(self, step):
        from contextlib import nullcontext

        return nullcontext()

    def rewind(self, number, step):
        self.rewound.append((number, step))


def _loop(task, keeper=None, **settings):
    told = []
    default = {"max_steps": 8, "warmup_steps": 2, "micro_batch_size": 1, "global_batch_size": 2, "log_every_steps": 1}
    loop = Loop(
        Small(),
        task,
        Pretrain(**default | {"guards": GUARDS, "min_validation_points": 3} | settings),
        3,
        Meter(sequences=len(task)),
        Quiet(),
        keeper or Memory(),
        lambda figures, step: told.append((step, figures)),
    )
    return loop, told


def _curve(loop, name="train/loss"):
    return [(event["step"], event[name]) for event in loop.history if name in event]


def test_each_step_reads_the_next_examples_of_the_shuffled_order():
    loop, _ = _loop(Numbers(), micro_batch_size=2)
    loop.run()
    read = [index for row in loop.task.read if len(row) == 2 for index in row]
    assert sorted(read[:10]) == list(range(10)) and len(read) == 16  # an epoch visits each once
    assert loop.meter.tokens == 16


def test_a_resumed_run_goes_on_bit_for_bit_and_measures_nothing_twice():
    straight, _ = _loop(Numbers())
    straight.run()
    keeper = Memory()
    first, _ = _loop(Numbers(), keeper)
    first.run()
    resumed, told = _loop(Numbers(), keeper)
    step = resumed.restore(keeper.go_back(resumed.engine, 4))
    torch.manual_seed(99)  # what came before must not matter
    resumed.run(step)
    assert _curve(resumed) == _curve(straight)
    assert _curve(resumed, "validation/loss") == _curve(straight, "validation/loss")
    assert torch.equal(resumed.engine.model.weight, straight.engine.model.weight)
    assert [step for step, figures in told if "validation/loss" in figures] == [8]  # 4 came with the checkpoint


def test_validation_runs_first_evenly_and_last():
    loop, _ = _loop(Numbers())
    loop.run()
    assert [step for step, _ in _curve(loop, "validation/loss")] == [0, 4, 8]


def test_a_bad_batch_is_dropped_named_and_logged():
    loop, told = _loop(Numbers(poisoned=[5]), max_steps=5)
    loop.run()
    dropped = [event for event in loop.signals.told if event.kind == "loss_not_finite"]
    assert len(dropped) == 1 and "number 5" in dropped[0].details["documents"]
    assert len(_curve(loop)) == 4  # NaN is no point of the curve
    assert "train/learning_rate" in dict(told)[dropped[0].step + 1]


def test_too_many_bad_steps_go_back_to_a_checkpoint_and_pass_over_the_data():
    task = Numbers(size=40)
    loop, _ = _loop(task, max_steps=8)
    order = [index for step in range(8) for index in loop._indices(step)]
    task.poisoned = {order[6], order[9]}  # one in each of steps 3 and 4
    loop.run()
    assert [event.kind for event in loop.signals.told] == ["loss_not_finite", "loss_not_finite", "rollback"]
    assert loop.signals.rewound == [(1, 2)]
    steps = [step for step, _ in _curve(loop)]
    assert steps == list(range(1, 9)) and loop.guards.data_step(2) == 5


def test_a_run_that_stays_bad_gives_up_with_the_reason():
    loop, _ = _loop(Numbers(poisoned=range(10)), guards=GUARDS.model_copy(update={"max_rollbacks": 0}))
    with pytest.raises(DivergedError, match="2 bad steps in a row"):
        loop.run()


def test_batches_grow_in_stages_and_no_example_is_left_out():
    sizes = Batches(8, 2, 6)
    assert [sizes.size_at(step) for step in range(8)] == [2, 2, 4, 6, 6, 8, 8, 8]
    firsts = [sizes.first_at(step) for step in range(9)]
    assert firsts == [sum(sizes.size_at(before) for before in range(step)) for step in range(9)]
    loop, _ = _loop(Numbers(), batch_ramp_start=1, batch_ramp_steps=4)
    loop.run()
    assert [size for _, size in _curve(loop, "train/batch_size")] == [1, 1, 2, 2, 2, 2, 2, 2]


def test_what_a_reader_raises_comes_up_where_its_batch_is_asked_for():
    def make(number):
        if number == 2:
            raise OSError("gone")
        return number

    with prefetched(make, 0, 5) as following:
        assert [following(), following()] == [0, 1]
        with pytest.raises(OSError, match="gone"):
            following()


def test_a_recipe_section_becomes_schedule_and_sizes():
    settings = Pretrain(schedule="wsd", decay_ratio=0.2, batch_ramp_start=4, batch_ramp_steps=10)
    assert schedule_of(settings) == Schedule("wsd", 200, 20, 0.1, 0.2, "sqrt")
    assert batches_of(settings) == Batches(8, 4, 10)
