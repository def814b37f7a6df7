"""A worker that hangs in the middle of a run under Ray Train: it is named, ended, and the run goes on."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def work(config):
    """Two workers that wait for each other at each step; in the first attempt one of them hangs at step 5."""
    import torch
    import torch.distributed as dist

    from qwen_core.config.guards import Guards
    from qwen_core.train.meter import Meter
    from qwen_core.train.signals import Signals

    folder, rank = Path(config["folder"]), dist.get_rank()
    meter = Meter(sequences=1)
    settings = Guards(heartbeat_seconds=0.2, stall_seconds=5, abort_seconds=25, profile_steps=[2, 3])
    told = Signals("pretrain", settings, meter, run=None, state_uri=str(folder), rank=rank, world_size=2)
    told.events.add(lambda event: _note(folder / f"event-{event.kind}", event.message))
    with told:
        for step in range(10):
            with meter.part("data"):
                if step == 5 and rank == 1 and not (folder / "hung").exists():
                    (folder / "hung").touch()
                    time.sleep(600)
            if step == 6 and rank == 0:
                signal.pthread_kill(
                    threading.get_ident(), signal.SIGUSR1
                )  # a person asks for a profile; Ray's workers must not mind
            with told.around(step):
                dist.all_reduce(torch.ones(1))
            meter.step([], _Result(), sequences=1, data_step=step, step=step)
    (folder / f"done-{rank}").touch()


def _note(path, message):
    """Keep the first: on a busy machine a worker that is merely slow may be told of later."""
    if not path.exists():
        path.write_text(message)


class _Result:
    tokens, seconds = 1, {}


def test_a_worker_that_hangs_is_named_and_the_run_is_started_anew(tmp_path):
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find test files
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        TorchTrainer(
            work,
            train_loop_config={"folder": str(tmp_path)},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=2),
            run_config=ray.train.RunConfig(
                storage_path=str(tmp_path / "ray"), failure_config=ray.train.FailureConfig(max_failures=3)
            ),
        ).fit()
    finally:
        ray.shutdown()
    assert (tmp_path / "done-0").exists() and (tmp_path / "done-1").exists()
    told = (tmp_path / "event-stalled_step").read_text()
    assert "rank 1 is in data of step 5; the others are in step of step 5" in told
    assert "its process ends" in (tmp_path / "event-aborted").read_text()
    assert {path.name for path in (tmp_path / "profiles").iterdir()} == {"step_2", "step_6"}
