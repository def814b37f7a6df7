"""What the workers of the checkpoint benchmark do: steps without saving, saving beside the training, and in its way."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from qwen_core.train.checkpoint import Checkpoints
from tests.benchmarks.spread_training import batch_of, our_engine, summed

_EVERY, _TURNS = 10, 3


def work(folder: str) -> dict[str, Any]:
    """Take stretches of ten steps, each with one checkpoint at its end or none, turn about.

    Args:
        folder: For the checkpoints.

    Returns:
        Seconds of a step in each mode (the best stretch), and seconds for which a save held the training up.
    """
    torch.set_num_threads(1)
    engine = our_engine({"stage": 3})
    step = 0

    def stretch(keeper: Checkpoints | None) -> tuple[float, float]:
        nonlocal step
        torch.distributed.barrier()
        started, blocked = time.perf_counter(), 0.0
        for number in range(_EVERY):
            if keeper is not None and number == 1:  # so that its writing falls into the stretch
                began = time.perf_counter()
                keeper.save(engine, step, {"history": []}, None)
                blocked = time.perf_counter() - began
            engine.step([batch_of(step)], summed, rate=1.0)
            step += 1
        return (time.perf_counter() - started) / _EVERY, blocked

    options = {"identity": {}, "plan": {"zero_stage": 3}, "every_steps": _EVERY}
    keepers = {
        "none": None,
        "asynchronous": Checkpoints(f"{folder}/a", **options),
        "synchronous": Checkpoints(f"{folder}/s", **options, is_asynchronous=False),
    }
    stretch(None)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in keepers}
    for _ in range(_TURNS):
        for name, keeper in keepers.items():
            turns[name].append(stretch(keeper))
    for keeper in keepers.values():
        if keeper is not None:
            keeper.finish()
    return {
        name: (min(seconds for seconds, _ in all_), float(np.median([b for _, b in all_])))
        for name, all_ in turns.items()
    }
