"""Runs a function in several processes that form one process group over gloo, for tests of spread models.

    spread(function, 8, argument) ─▶ leader ─▶ 8 forks ─▶ 8 answers
                                       ▲
    one Python for all tests, which imports torch and deepspeed once, forks a leader for each call

Forks of a process that has done the imports start in a fraction of the time that eight Pythons need.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


def spread(function: Callable[..., Any], num_workers: int, *arguments: Any, timeout_seconds: float = 600) -> list[Any]:
    """Call a function in each of several processes; torch.distributed is up when it begins.

    Args:
        function: At the top level of a module that can be imported as `tests...`; a test file of pytest's cannot.
        num_workers: Processes.
        arguments: Handed on, by pickle.
        timeout_seconds: After which all processes are ended.

    Returns:
        What the function returned, by rank.

    Raises:
        RuntimeError: A process failed; with its traceback.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = (function.__module__, function.__qualname__, num_workers, arguments, dict(os.environ))
        (folder / "task").write_bytes(pickle.dumps(task))
        code = _Nursery.of_this_process().call(folder, timeout_seconds)
        if code:
            faults = "\n".join(path.read_text() for path in sorted(folder.glob("fault-*")))
            raise RuntimeError(f"a process failed ({code}):\n{faults or (folder / 'output').read_text()[-8000:]}")
        return [pickle.loads((folder / f"answer-{rank}").read_bytes()) for rank in range(num_workers)]


class _Nursery:
    """The Python that forks leaders; it ends with the tests, for its input ends then."""

    _only: _Nursery | None = None

    def __init__(self) -> None:
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": paths}
        command = [sys.executable, "-m", "tests.parallel.spread"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @classmethod
    def of_this_process(cls) -> _Nursery:
        if cls._only is None or cls._only._process.poll() is not None:
            cls._only = cls()
        return cls._only

    def call(self, folder: Path, timeout_seconds: float) -> int:
        """Have a task done; the leader's exit code."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        leader = int(self._process.stdout.readline())
        timer = threading.Timer(timeout_seconds, _end, [leader])
        timer.start()
        try:
            return int(self._process.stdout.readline())
        except BaseException:  # a time-out of the test; the answer that is still to come must meet nobody
            _end(leader)
            self._process.kill()
            raise
        finally:
            timer.cancel()


def _end(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _serve() -> None:
    """Import once; fork a leader for each folder that is named, and tell its id and its end."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    import deepspeed
    import torch

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch._dynamo.config.disable = True
    for line in sys.stdin:
        leader = os.fork()
        if leader == 0:
            os.setsid()
            folder, code = Path(line.strip()), 1
            try:
                code = _lead(folder)
            except BaseException:
                (folder / "fault-leader").write_text(traceback.format_exc())
            sys.stdout.flush()
            os._exit(code)  # no exit handlers: they belong to the parent
        print(leader, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]), flush=True)


def _lead(folder: Path) -> int:
    """Fork the ranks and wait; the first failure ends the others."""
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    module, function, num_workers, arguments, environment = pickle.loads((folder / "task").read_bytes())
    os.environ.clear()
    os.environ |= environment | _ENVIRONMENT
    importlib.import_module(module)
    children = {}
    for rank in range(num_workers):
        child = os.fork()
        if child == 0:
            code = _work(folder, rank, num_workers, module, function, arguments)
            sys.stdout.flush()
            os._exit(code)
        children[child] = rank
    code = 0
    while children:
        child, status = os.wait()
        children.pop(child, None)
        if status and not code:
            code = 1
            for other in children:
                os.kill(other, signal.SIGKILL)
    return code


def _work(folder: Path, rank: int, num_workers: int, module: str, name: str, arguments: tuple[Any, ...]) -> int:
    import torch
    import torch.distributed as dist

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_workers)}
    torch.set_num_threads(1)
    try:
        store = dist.FileStore(str(folder / "store"), num_workers)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=num_workers, timeout=timedelta(seconds=300))
        answer = getattr(importlib.import_module(module), name)(*arguments)
        (folder / f"answer-{rank}").write_bytes(pickle.dumps(answer))
    except BaseException:
        (folder / f"fault-{rank}").write_text(f"rank {rank}: {traceback.format_exc()}")
        return 1
    return 0


if __name__ == "__main__":
    _serve()
