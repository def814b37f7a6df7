"""Runs a function in several processes that form one process group over gloo, for tests of spread models.

    spread(function, 8, argument) ─▶ a fresh Python that imports torch and deepspeed once ─▶ 8 forks ─▶ 8 answers

Forks of one process that has done the imports start in a fraction of the time that eight Pythons need.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


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
        task = (function.__module__, function.__qualname__, num_workers, arguments)
        (folder / "task").write_bytes(pickle.dumps(task))
        environment = os.environ | {
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, "-m", "tests.parallel.spread", name]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
        if done.returncode:
            faults = "\n".join(path.read_text() for path in sorted(folder.glob("fault-*")))
            raise RuntimeError(f"a process failed:\n{faults or done.stdout[-2000:] + done.stderr[-6000:]}")
        return [pickle.loads((folder / f"answer-{rank}").read_bytes()) for rank in range(num_workers)]


def _main(folder: Path) -> int:
    """Import once, fork, wait; the first failure ends the others."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    import deepspeed
    import torch

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch._dynamo.config.disable = True
    module, function, num_workers, arguments = pickle.loads((folder / "task").read_bytes())
    importlib.import_module(module)
    children = {}
    for rank in range(num_workers):
        child = os.fork()
        if child == 0:
            code = _work(folder, rank, num_workers, module, function, arguments)
            sys.stdout.flush()
            os._exit(code)  # no exit handlers: they belong to the parent
        children[child] = rank
    code = 0
    while children:
        child, status = os.wait()
        children.pop(child, None)
        if status and not code:
            code = 1
            for other in children:
                os.kill(other, 9)
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
    sys.exit(_main(Path(sys.argv[1])))
