"""A job's log is shown once, in bounded memory."""

import pytest

pytest.importorskip("airflow")

from operators import ray_log
from operators.ray_hook import RayHook
from operators.ray_job import RayJobStatus
from operators.ray_log import RayJobLog

RUNNING, ENDED = RayJobStatus("RUNNING", node_id="n"), RayJobStatus("SUCCEEDED", node_id="n")


@pytest.fixture
async def hook(ray):
    hook = RayHook()
    yield hook
    await hook.async_close()


def _asked_lines(ray):
    return [int(path.split("lines=")[1].split("&")[0]) for _, path in ray.asked if "lines=" in path]


async def test_whole_lines_are_shown_while_the_job_runs_and_the_rest_at_its_end(ray, hook):
    job = ray.add("j", logs="one\nha")
    log = RayJobLog(hook, "j")
    assert await log.read(RUNNING) == ["one"]
    assert await log.read(RUNNING) == []
    job["logs"] = "one\nhalf\nlast"
    assert await log.read(RUNNING) == ["half"]
    assert await log.read(ENDED) == ["last"]
    assert log.position_bytes == len("one\nhalf\nlast")


async def test_another_reader_goes_on_at_the_position(ray, hook):
    ray.add("j", logs="erste\nzweite ü\ndritte\n")
    first = RayJobLog(hook, "j")
    await first.read(RUNNING)
    ray.jobs["j"]["logs"] += "vierte\n"
    assert await RayJobLog(hook, "j", first.position_bytes).read(RUNNING) == ["vierte"]


async def test_long_log_is_read_from_its_end_and_never_again_as_a_whole(ray, hook):
    job = ray.add("j", logs="".join(f"step {number}: loss 1.{number}\n" for number in range(20_000)))
    log, shown = RayJobLog(hook, "j"), []
    shown += await log.read(RUNNING)
    ray.asked.clear()
    for start in range(20_000, 20_300, 30):
        job["logs"] += "".join(f"step {number}: loss 1.{number}\n" for number in range(start, start + 30))
        shown += await log.read(RUNNING)
    assert shown == job["logs"].splitlines()
    assert set(_asked_lines(ray)) == {200}


async def test_burst_of_lines_is_found_in_a_wider_window(ray, hook):
    job = ray.add("j", logs="".join(f"step {number}\n" for number in range(20_000)))
    log = RayJobLog(hook, "j")
    await log.read(RUNNING)
    job["logs"] += "".join(f"burst {number}\n" for number in range(3_000))
    assert await log.read(RUNNING) == [f"burst {number}" for number in range(3_000)]
    assert _asked_lines(ray)[-1] == 5_000


async def test_lines_that_are_all_alike_are_counted_not_guessed_and_not_read_at_each_poll(ray, hook, monkeypatch):
    job = ray.add("j", logs="waiting for resources\n" * 10_000)
    log = RayJobLog(hook, "j")
    assert len(await log.read(RUNNING)) == 10_000
    job["logs"] += "waiting for resources\n" * 7
    assert await log.read(RUNNING) == []  # a whole log is not read again so soon
    log._next_whole = 0.0
    assert len(await log.read(RUNNING)) == 7
    job["logs"] += "waiting for resources\n" * 3
    assert len(await log.read(ENDED)) == 3


async def test_flood_is_cut_and_the_log_says_how_much_was_left_out(ray, hook):
    text = "".join(f"line {number:07d} {'x' * 90}\n" for number in range(50_000))
    ray.add("j", logs="begin\n" + text + "the end\n")
    log = RayJobLog(hook, "j")
    shown = await log.read(RUNNING)
    assert shown[0] == "begin" and shown[-1] == "the end" and len(shown) < 8_000
    (told,) = [line for line in shown if "left out here" in line]
    left_out = int(told.split()[0].strip("[").replace(",", ""))
    kept = sum(len(line) + 1 for line in shown if line != told)
    assert abs(len(text) + 14 - left_out - kept) < 2  # the cut goes through a line
    assert log.position_bytes == len(text) + 14
    ray.jobs["j"]["logs"] += "more\n"
    assert await log.read(RUNNING) == ["more"]


async def test_memory_stays_small_whatever_the_logs_length(ray, hook):
    import tracemalloc

    ray.add("j", logs="x" * 99 + "\n")
    part = ray_log._NewPart()
    tracemalloc.start()
    for _ in range(500):
        part.add(b"y" * 65_535 + b"\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part.bytes == 500 * 65_536 and peak < 3_000_000


async def test_progress_bar_shows_its_last_state_and_does_not_grow_for_ever(ray, hook):
    job = ray.add("j", logs="0%\r50%\r100%\nnext\n")
    log = RayJobLog(hook, "j")
    assert await log.read(RUNNING) == ["100%", "next"]
    job["logs"] += "".join(f"{number}%\r" for number in range(5_000))
    assert await log.read(RUNNING) == ["4999%"]


async def test_mlflow_run_is_seen_also_where_two_pieces_meet_and_in_what_is_left_out(ray, hook):
    part = ray_log._NewPart()
    part.add(b"a\n" * 600_000 + b"qwen-core mlflow run: 12/ab")
    assert part.mlflow_run is None
    part.add(b"cdef\nmore\n" + b"b\n" * 600_000)
    assert part.mlflow_run == ("12", "abcdef")


async def test_job_that_has_no_node_yet_has_no_log(ray, hook):
    assert await RayJobLog(hook, "j").read(RayJobStatus("PENDING")) == []
