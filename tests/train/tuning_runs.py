"""What the processes of `test_tuning.py` do: fine-tune by adapters on packed rows, all of a worker's work."""

import contextlib
import time
from pathlib import Path

import ray.train
import torch

from qwen_core.config.align import Sft
from qwen_core.config.parallel import Parallel
from qwen_core.model.huggingface import read_config
from qwen_core.train.launch import Plan
from qwen_core.train.loop import Loop
from qwen_core.train.lora import Adapters
from qwen_core.train.sft import SftTask
from qwen_core.train.weights import AdaptedWeights, FolderWeights, empty_model
from qwen_core.train.worker import work

ADAPTERS = Adapters(4, 8.0, ("q_proj", "v_proj", "down_proj"), dropout=0.1, use_rslora=True)


class KilledError(Exception):
    """In the place of a signal."""


def run(home: str, runs: list[tuple[str, Sft, Parallel, int | None, int]]) -> list[dict]:
    """Train one run after the other; the last two of each are tokens of a packed row, and the step to die in, or -1."""
    torch.set_num_threads(1)
    ray.train.report = lambda metrics, checkpoint=None: None
    step_of, data, told = Loop._step, str(Path(home) / "data.arrow"), []
    for name, settings, parallel, row, die in runs:
        config = read_config(Path(home) / "base")
        adapters = ADAPTERS if settings.lora.enabled else None
        source = FolderWeights(config, str(Path(home) / "base"))
        held: dict = {}

        def step(loop, number, batches, die=die, held=held):
            if number == die:
                raise KilledError
            learning = {n for n, p in loop.engine.module.named_parameters() if p.requires_grad}
            optimised = [p for group in loop.engine.deepspeed.optimizer.param_groups for p in group["params"]]
            held.update(learning=sorted(learning), optimised=sum(p.numel() for p in optimised))
            return step_of(loop, number, batches)

        Loop._step = step  # type: ignore[method-assign]
        with contextlib.suppress(KilledError):
            work(
                Plan(
                    stage="sft",
                    settings=settings,
                    parallel=parallel,
                    seed=3,
                    make_model=lambda config=config, adapters=adapters: empty_model(config, adapters),
                    make_task=lambda _, row=row: SftTask(data, data, 2, row),
                    output_uri=str(Path(home) / name / "out"),
                    state_uri=str(Path(home) / name / "state"),
                    tokenizer_uri=str(Path(home) / "base"),
                    eos_token_id=319,
                    pad_token_id=317,
                    source=source if adapters is None else AdaptedWeights(source, config, adapters, 3),
                    adapters=adapters,
                ),
                time.time(),
            )
        told.append(held)
    return told
