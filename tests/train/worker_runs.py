"""What the processes of `test_worker.py` do: all of a worker's work, with Ray Train's reports only collected."""

import contextlib
import dataclasses
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.train
import torch

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Pretrain
from qwen_core.data.packed import packed_schema
from qwen_core.model import CausalLM, ModelConfig, initialise
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.train.launch import Plan
from qwen_core.train.loop import Loop
from qwen_core.train.pretrain import PretrainTask
from qwen_core.train.worker import work
from tests.train.tables import write

CONFIG = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=32,
)


def write_packed(path: Path, count: int, seed: int) -> None:
    """Write sequences of two documents each."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "input_ids": rng.integers(0, 64, 32).tolist(),
            "document_starts": [0, int(rng.integers(4, 28))],
            "num_bytes": 96,
            "num_tokens": int(rng.integers(28, 33)),
            "language": "en",
            "source": "web",
        }
        for _ in range(count)
    ]
    write(path, pa.Table.from_pylist(rows, schema=packed_schema(32)))


def make_model() -> CausalLM:
    """Build the model."""
    model = CausalLM(CONFIG)
    initialise(model, 5)
    return model


class Poisonable(PretrainTask):
    """Pretraining, but a batch may be marked as bad."""

    def objective(self, losses: torch.Tensor, batch: Batch) -> Objective:
        """Sum the losses, or give NaN."""
        return Objective(losses.sum() * (float("nan") if "bad" in batch.extras else 1.0))


def plan_of(home: str, name: str, settings: Pretrain, parallel: Parallel) -> Plan:
    """Say what to do, below a folder that holds the data."""
    data = [str(Path(home) / "train.arrow")], [str(Path(home) / "validation.arrow")]
    return Plan(
        stage="pretrain",
        settings=settings,
        parallel=parallel,
        seed=3,
        make_model=make_model,
        make_task=lambda _: Poisonable(*data, 2),
        output_uri=str(Path(home) / name / "out"),
        state_uri=str(Path(home) / name / "state"),
        tokenizer_uri=home,
        eos_token_id=1,
        pad_token_id=0,
    )


class KilledError(Exception):
    """In the place of a signal."""


def run(home: str, runs: list[tuple[str, Pretrain, Parallel, int, int]]) -> list[list[dict]]:
    """Train one run after the other; in step `die` one dies, in step `bad` its loss is NaN the first time, -1 for none.

    Returns:
        What each reported, and what it returned.
    """
    torch.set_num_threads(1)
    answers = []
    step_of = Loop._step
    for name, settings, parallel, die, bad in runs:
        reports: list[dict] = []
        ray.train.report = lambda metrics, checkpoint=None, reports=reports: reports.append(metrics)

        def step(loop, number, batches, die=die, bad=bad, seen=[]):  # noqa: B006 - remembers between steps
            if number == die:
                raise KilledError
            if number == bad and bad not in seen:
                seen.append(bad)
                batches = [dataclasses.replace(batch, extras={"bad": torch.tensor(1.0)}) for batch in batches]
            return step_of(loop, number, batches)

        Loop._step = step  # type: ignore[method-assign]
        with contextlib.suppress(KilledError):
            reports.append({"returned": work(plan_of(home, name, settings, parallel), time.time())})
        answers.append(reports)
    return answers
