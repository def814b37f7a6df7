"""The watch: what it sees with a clock set by hand, and, in real processes, that a stalled one ends."""

import json
import subprocess
import sys

import pytest

from qwen_core.config.guards import Guards as GuardSettings
from qwen_core.train.meter import Meter
from qwen_core.train.watch import EXIT_STALLED, LocalBoard, Watch, laggards, plan_event

SETTINGS = GuardSettings(heartbeat_seconds=5, stall_factor=10, stall_seconds=60, abort_seconds=600)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Site:
    """Some workers with a clock that all share; rank 0's events are kept."""

    def __init__(self, world_size: int = 1, memory=lambda gpu: {"machine": 0.5}):
        self.clock, self.events, self.exits, self.closed = Clock(), [], [], []
        self.meters = [Meter(sequences=1, clock=self.clock) for _ in range(world_size)]
        board = LocalBoard(world_size)
        self.watches = [
            Watch(
                SETTINGS,
                meter,
                board,
                rank=rank,
                world_size=world_size,
                emit=self.events.append if rank == 0 else lambda event: None,
                before_exit=lambda rank=rank: self.closed.append(rank),
                memory=memory,
                exit_process=lambda code, rank=rank: self.exits.append((rank, code)),
            )
            for rank, meter in enumerate(self.meters)
        ]

    def steps(self, count: int, seconds: float = 2.0, ranks=None) -> None:
        for _ in range(count):
            self.clock.now += seconds
            for meter in self.meters if ranks is None else [self.meters[rank] for rank in ranks]:
                meter.step([], _Result(), sequences=1, data_step=0)
                with meter.part("data"):
                    pass

    def look(self, ranks=None) -> list[str]:
        """Let workers look, rank 0 last; return the kinds of the events that came of it."""
        before = len(self.events)
        for rank in sorted(range(len(self.watches)) if ranks is None else ranks, reverse=True):
            self.watches[rank].look()
        return [event.kind for event in self.events[before:]]


class _Result:
    tokens, seconds = 10, {}


def test_a_step_that_takes_long_is_told_once_with_all_stacks(capsys):
    site = Site()
    site.steps(5)
    site.clock.now += 59
    assert site.look() == []
    site.clock.now += 2
    assert site.look() == ["stalled_step"] and site.look() == []
    event = site.events[0]
    assert event.step == 5 and event.message.startswith("step has taken 61 s (median 2.0 s)")
    assert "test_watch.py" in event.details["stacks"] and "rank 0 stalls in step of step 5" in capsys.readouterr().out
    site.steps(1)
    site.clock.now += 200
    assert site.look() == ["stalled_step"]


def test_slow_steps_have_a_limit_of_their_own():
    site = Site()
    site.steps(5, seconds=30)
    site.clock.now += 299
    assert site.look() == []
    site.clock.now += 2
    assert site.look() == ["stalled_step"]


def test_the_first_step_may_compile_and_a_checkpoint_may_take_long():
    site = Site()
    site.clock.now += 239
    assert site.look() == []
    site.steps(5)
    with site.meters[0].pause("checkpoint"):
        site.clock.now += 239
        assert site.look() == []
        site.clock.now += 2
        assert site.look() == ["stalled_step"]


def test_the_worker_that_the_others_wait_for_is_named():
    site = Site(world_size=4)
    site.steps(5)
    site.steps(1, ranks=[0, 1, 3])
    site.meters[2].phase = "data"
    site.clock.now += 100
    assert site.look() == ["stalled_step"]
    assert site.events[-1].message.endswith("rank 2 is in data of step 5; the others are in step of step 6")


def test_a_silent_worker_is_told_once_until_it_comes_back():
    site = Site(world_size=3)
    site.steps(5)
    assert site.look() == []
    told = []
    for _ in range(8):
        site.steps(2)
        site.clock.now += 1
        told += site.look(ranks=[0, 1])
    assert told == ["silent_rank"]
    assert site.events[-1].message == "rank 2 was not heard of for 35 s; last in step of step 5"
    assert site.look() == []
    for _ in range(8):
        site.steps(2)
        site.clock.now += 1
        told += site.look(ranks=[0, 1])
    assert told == ["silent_rank", "silent_rank"]


def test_memory_near_its_limit_is_told_once_until_it_fell():
    full = {"machine": 0.5, "gpu": 0.96}
    site = Site(memory=lambda gpu: full)
    assert [site.look(), site.look()] == [["memory_near_limit"], []]
    assert site.events[0].message == "memory (gpu) of rank 0 is 96% full; guards.memory_limit_ratio is 95%"
    full["gpu"] = 0.93
    assert site.look() == []
    full["gpu"] = 0.97
    assert site.look() == []  # it has not fallen far enough
    full["gpu"] = 0.80
    site.look()
    full["gpu"] = 0.97
    assert site.look() == ["memory_near_limit"]


def test_a_stall_that_lasts_ends_the_process_rank_0_first():
    site = Site(world_size=2)
    site.steps(5)
    site.clock.now += 601
    assert "aborted" in site.look() and site.exits == [(0, EXIT_STALLED)] and site.closed == [0]
    site.clock.now += 20
    site.look(ranks=[1])
    assert site.exits[1] == (1, EXIT_STALLED)


def test_a_speed_that_stays_low_is_told_and_a_single_slow_point_is_not():
    site = Site()
    for step in range(12):
        site.watches[0].point(step, {"train/tokens_per_second": 1000.0, "train/epochs": 0.1})
    for step, speed in enumerate([400.0, 1000.0, 400.0, 400.0, 400.0, 400.0], 12):
        site.watches[0].point(step, {"train/tokens_per_second": speed, "train/epochs": 0.1})
    assert [(event.kind, event.step) for event in site.events] == [("throughput_drop", 16)]
    assert site.events[0].message == "400 tokens per second, the run's median is 1000"


def test_data_that_do_not_last_are_told_before_the_start_and_when_they_are_used_up():
    assert plan_event(1000, 4000, 4.0) is None
    event = plan_event(1000, 4500, 4.0)
    assert event.kind == "data_exhausted" and "reads 4,500 sequences, there are 1,000: 4.5 passes" in event.message
    site = Site()
    for step, epochs in enumerate([3.9, 4.0, 4.1, 4.2]):
        site.watches[0].point(step, {"train/epochs": epochs})
    assert [(one.step, one.message[:34]) for one in site.events] == [(2, "the data are read for the 5th time")]


@pytest.mark.parametrize(
    ("beats", "text"),
    [
        (
            [{"step": 5, "phase": "step"}, {"step": 5, "phase": "data"}],
            "rank 1 is in data of step 5; the others are in step of step 5",
        ),
        ([], "all workers are at the same place"),
        ([{"step": 1, "phase": "step"}] * 2, "all workers are at the same place"),
        (
            [{"step": 1, "phase": "step"}, {}, {"step": 1, "phase": "step"}],
            "rank 1 is not heard of; the others are in step of step 1",
        ),
    ],
)
def test_laggards(beats, text):
    assert laggards(beats) == text


STALLING = """
import sys, time, ctypes
from qwen_core.config.guards import Guards
from qwen_core.train import watch
from qwen_core.train.meter import Meter
watch._REARM_SECONDS = 0.5
how, meter = sys.argv[1], Meter(sequences=1)
meter.phase = "step"
settings = Guards(heartbeat_seconds=0.1, stall_seconds=0.1, abort_seconds=1)
with watch.Watch(settings, meter, watch.LocalBoard(1), rank=0, world_size=1, emit=lambda e: print(e.kind, flush=True)):
    # PyDLL keeps Python's lock: no thread of Python runs until it returns
    ctypes.PyDLL(None).sleep(60) if how == "hard" else time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("soft", EXIT_STALLED), ("hard", 1)])
def test_a_process_that_stalls_ends_even_where_python_cannot_run(how, code):
    done = subprocess.run([sys.executable, "-c", STALLING, how], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("aborted" in done.stdout) == (how == "soft")
    assert how == "soft" or "Thread" in done.stderr


TOGETHER = """
import json, sys, torch.distributed as dist
from qwen_core.train.watch import make_board
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:" + sys.argv[2], rank=rank, world_size=2)
board = make_board(2)
before = board.read()
dist.barrier()
board.put(rank, f"hello {rank}")
dist.barrier()
print(json.dumps([before, board.read(), board.read()]))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_workers_read_each_other_through_the_store():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    workers = [
        subprocess.Popen([sys.executable, "-c", TOGETHER, str(rank), port], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told = [json.loads(worker.communicate(timeout=120)[0].splitlines()[-1]) for worker in workers]
    assert told == [[[None, None], ["hello 0", "hello 1"], ["hello 0", "hello 1"]]] * 2
