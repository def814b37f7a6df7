"""Profiles of planned steps and on request, on the CPU."""

import gzip
import json
import signal
import threading

import torch

from qwen_core.train.profile import Profiler, request_file


def run(profiler: Profiler, steps: range, ask=lambda step: None) -> None:
    for step in steps:
        ask(step)
        profiler.before(step)
        torch.ones(4, 4) @ torch.ones(4, 4)
        profiler.after(step)
    profiler.close()


def kept(into: list):
    def keep(files, first):
        trace = json.loads(gzip.decompress(files["trace.json.gz"].read_bytes()))
        names = {event.get("name") for event in trace["traceEvents"]}
        into.append((first, sorted(files), "aten::mm" in names, files["operators.txt"].read_text()))

    return keep


def test_planned_steps_are_recorded_once():
    found = []
    run(Profiler([2, 3], None, kept(found), listen=False), range(6))
    assert [one[:3] for one in found] == [(2, ["operators.txt", "trace.json.gz"], True)]
    assert "aten::mm" in found[0][3]


def test_a_resume_in_the_middle_records_the_rest():
    found = []
    run(Profiler([2, 4], None, kept(found), listen=False), range(3, 8))
    assert [first for first, *_ in found] == [3]


def test_a_file_asks_for_the_next_three_steps(tmp_path):
    found = []
    file = request_file(str(tmp_path))
    run(Profiler([], file, kept(found), listen=False), range(10), lambda step: step == 4 and file.touch())
    assert [first for first, *_ in found] == [4] and not file.exists()
    assert request_file("s3://bucket/state") is None


def test_a_signal_asks_too_and_leaves_the_stacks_though_the_loop_is_not_in_the_main_thread():
    """Ray Train runs the loop in a thread, where Python sets no signal handlers."""
    found = []

    def work():
        run(
            Profiler([], None, kept(found)),
            range(10),
            lambda step: step == 5 and signal.pthread_kill(threading.get_ident(), signal.SIGUSR1),
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [(first, "stacks.txt" in names) for first, names, *_ in found] == [(5, True)]


def test_what_cannot_be_kept_does_not_stop_training(caplog):
    def broken(files, first):
        raise OSError("disk full")

    run(Profiler([0, 0], None, broken, listen=False), range(3))
    assert "disk full" in caplog.text
