"""A stop that outlives the task: a process of its own asks on until the job has ended.

Airflow kills a worker 5 s after it was told to end, and Ray forgets a stop that comes before the job's process exists,
which on a busy cluster takes longer than that.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys

from operators.ray_attach import patiently
from operators.ray_connection import RayAddress
from operators.ray_hook import RayHook

_SECONDS = 120.0


def stop_aside(address: RayAddress, submission_id: str) -> None:
    """Begin to stop a job, and leave that to another process.

    Args:
        address: Of the cluster; its token goes through a pipe, for anybody may read a command line.
        submission_id: The job.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "operators.ray_stop"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends the worker's group does not end it
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        text=True,
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        json.dump({"address": dataclasses.asdict(address), "submission_id": submission_id}, pipe)


def _main() -> None:
    told = json.load(sys.stdin)
    hook = RayHook(address=RayAddress(**told["address"]))
    patiently(
        lambda: hook.stop(told["submission_id"], _SECONDS), _SECONDS, logging.getLogger(__name__), is_over=lambda: False
    )


if __name__ == "__main__":
    _main()
