"""A training job that a test may kill: `python -m tests.train.fault_driver FOLDER [WORKER:CALL ...]`.

Worker WORKER kills itself a random moment after its CALLth micro-batch, once for each entry.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Pretrain
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.train.launch import Plan, train

STEPS, EVERY = 60, 3


def make_model() -> CausalLM:
    torch.manual_seed(3)
    figures = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    return CausalLM(ModelConfig(**figures, **heads, num_hidden_layers=2))


class Task:
    """Sequences that are a function of their numbers; this worker may die while it reads them."""

    def __init__(self, folder: Path, victims: list[tuple[int, int]]) -> None:
        self._folder, self._victims, self._calls = folder, victims, 0

    def __len__(self) -> int:
        return 64

    def batch(self, indices):
        self._calls += 1
        rank = torch.distributed.get_rank()
        for worker, call in self._victims:
            if worker == rank and call <= self._calls and self._is_first(worker, call):
                threading.Thread(target=self._die, daemon=True).start()
        return self._make(indices)

    def _is_first(self, worker: int, call: int) -> bool:
        try:
            (self._folder / f"killed-{worker}-{call}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    @staticmethod
    def _die() -> None:
        time.sleep(random.random() * 0.3)
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _make(indices) -> Batch:
        rows = [torch.randint(0, 64, (24,), generator=torch.Generator().manual_seed(int(i))) for i in indices]
        ids = torch.stack(rows)
        return Batch(ids, ids.clone(), None, float(ids.shape[0] * (ids.shape[1] - 1)), ids.numel())

    def objective(self, losses, batch):
        return Objective(losses.sum())

    def validate(self, model):
        total = torch.zeros(1, dtype=torch.float64)
        for indices, weights in model.shard.batches(4, 2):
            losses = model.measure(self._make([1000 + i for i in indices])).double().sum(1)
            total += (losses * torch.tensor(weights, dtype=torch.float64)).sum()
        return {"loss": float(model.shard.sum(total)) / (4 * 23)}

    def describe(self, indices):
        return [str(index) for index in indices]


def main(folder: Path, victims: list[tuple[int, int]]) -> None:
    import ray

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=True, logging_level="ERROR")
    settings = Pretrain(
        max_steps=STEPS,
        micro_batch_size=2,
        global_batch_size=8,
        warmup_steps=2,
        log_every_steps=1,
        min_validation_points=5,
        checkpoint_every_steps=EVERY,
        max_failures=4,
    )
    train(
        Plan(
            stage="pretrain",
            settings=settings,
            parallel=Parallel(num_workers=2, zero_stage=3),
            seed=11,
            make_model=make_model,
            make_task=lambda model: Task(folder, victims),
            output_uri=str(folder / "output"),
            state_uri=str(folder / "state"),
            tokenizer_uri=str(folder),
            eos_token_id=0,
            pad_token_id=0,
        )
    )


if __name__ == "__main__":
    told = [argument.split(":") for argument in sys.argv[2:]]
    main(Path(sys.argv[1]), [(int(worker), int(call)) for worker, call in told])
