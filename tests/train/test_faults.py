"""Workers and drivers are killed with signal 9; the same command goes on to the very same losses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from tests.parallel.spread import spread
from tests.train.checkpoint_runs import run_until_killed
from tests.train.fault_driver import STEPS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CLOCKS = ("time/", "system/", "seconds", "per_second", "mfu")


@pytest.fixture(scope="module")
def cluster():
    """A Ray of its own that outlives the drivers; without its dashboard a dead driver's CPUs stay taken for a while."""
    ray.init(address="local", num_cpus=6, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def start(cluster, folder, *victims):
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"RAY_ADDRESS": cluster, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.train.fault_driver", str(folder), *victims],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )


def finish(driver, folder):
    assert driver.wait(600) == 0, (folder / "log").read_text()[-4000:]


def history(folder):
    """Everything that was logged, but for what clocks say."""
    lines = (folder / "output" / "history.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not any(word in name for word in CLOCKS)}
        for line in lines
    ]


def wait_for(condition, driver):
    """Wait until something is so while a driver runs."""
    end = time.monotonic() + 600
    while not condition():
        assert driver.poll() is None and time.monotonic() < end, "the driver ended before it could be killed"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("plan", "kills"),
    [
        ({"zero": 3, "precision": "bf16"}, ((0, 5), (1, 4), (1, 7))),
        ({"pipeline": 2, "tensor": 1, "tied": True}, ((1, 6),)),
    ],
)
def test_losses_are_bit_equal_wherever_a_worker_is_killed(tmp_path, plan, kills):
    steps, every, never = 25, 2, (-1, -1)
    expected = spread(run_until_killed, 2, plan, str(tmp_path / "whole"), steps, every, *never)
    for kill in kills:
        with pytest.raises(RuntimeError, match="a process failed"):
            spread(run_until_killed, 2, plan, str(tmp_path / "killed"), steps, every, *kill)
    assert list((tmp_path / "killed").glob("*/manifest.json"))
    assert spread(run_until_killed, 2, plan, str(tmp_path / "killed"), steps, every, *never) == expected


@pytest.mark.ray
def test_losses_are_bit_equal_after_workers_and_the_driver_were_killed(cluster, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(cluster, whole), whole)
    driver = start(cluster, killed, "1:11", "0:14")
    committed = killed / "state" / "checkpoints"
    wait_for(lambda: (killed / "killed-0-14").exists() and list(committed.glob("step-0000001*/manifest.json")), driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (killed / "output").exists() and (killed / "killed-1-11").exists()
    before = len((killed / "log").read_text())  # what the workers told last is lost with the driver that passed it on
    finish(start(cluster, killed, "1:11", "0:14"), killed)
    told = (killed / "log").read_text()[before:]
    assert "resumed at step" in told, told[-4000:]
    expected, got = history(whole), history(killed)
    assert [event["step"] for event in expected if "train/loss" in event] == list(range(1, STEPS + 1))
    assert len([event for event in expected if "validation/loss" in event]) == 5
    assert got == expected
    assert (killed / "output/model/model.safetensors").read_bytes() == (
        whole / "output/model/model.safetensors"
    ).read_bytes()
