"""What the workers of the training benchmark do: the same steps with our engine, and with transformers' model.

Both train a Qwen3 of equal size on the same packed sequences, with torch's AdamW: in bf16 with fp32 master weights, or
in fp32 where the CPU computes bf16 in software, a hundred times slower.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from qwen_core.data.packed import PackedBatch
from qwen_core.model import CausalLM, ModelConfig, initialise
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.parallel.optimisers import Optimisation
from qwen_core.parallel.zero import Zero, ZeroEngine
from qwen_core.train.pretrain import packed_batch
from tests.benchmarks.precision import PRECISION

FIGURES: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}
SEQUENCES, LENGTH = 4, 512


def work(kind: str, options: Mapping[str, Any], steps: int) -> dict[str, float]:
    """Train for some steps.

    Args:
        kind: `ours` or `transformers`.
        options: `stage` of ZeRO; for ours `compile`.
        steps: Timed, after three that warm up.

    Returns:
        Tokens a second over all workers (the median step), seconds of the first step, peak resident bytes of this one.
    """
    torch.manual_seed(0)
    torch.set_num_threads(options.get("threads", 1))
    step = {"ours": _ours, "transformers": _transformers}[kind](options)
    world = torch.distributed.get_world_size()
    seconds = []
    for number in range(steps + 3):
        batch = batch_of(number * world + torch.distributed.get_rank())
        torch.distributed.barrier()
        started = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - started)
    return {
        "tokens_per_second": SEQUENCES * LENGTH * world / float(np.median(seconds[3:])),
        "first_step_seconds": seconds[0],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def batch_of(seed: int) -> Batch:
    """Make random packed sequences of three documents each."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, FIGURES["vocab_size"], (SEQUENCES, LENGTH))
    bounds = np.sort(random.integers(1, LENGTH, (SEQUENCES, 2)))
    segments = (np.arange(LENGTH)[None, :, None] >= bounds[:, None, :]).sum(-1)
    return packed_batch(PackedBatch(ids, segments, np.full(SEQUENCES, LENGTH)))


def our_engine(options: Mapping[str, Any]) -> ZeroEngine:
    """Spread our model.

    Args:
        options: `stage` of ZeRO, `compile`.

    Returns:
        The engine.
    """
    model = CausalLM(ModelConfig(**FIGURES))
    initialise(model, seed=1)
    if options.get("compile"):
        torch._dynamo.config.disable = False
        model.compile_layers()
    optim = Optimisation(name="adamw", learning_rate=1e-3)
    return ZeroEngine(model, zero=Zero(stage=options["stage"]), precision=PRECISION, optim=optim, use_gpu=False)


def summed(losses: torch.Tensor, _: Batch) -> Objective:
    """Sum token losses, as pretraining does."""
    return Objective(losses.sum())


def _ours(options: Mapping[str, Any]) -> Callable[[Batch], object]:
    engine = our_engine(options)
    return lambda batch: engine.step([batch], summed, rate=1.0)


def _transformers(options: Mapping[str, Any]) -> Callable[[Any], None]:
    import deepspeed
    from transformers import Qwen3Config, Qwen3ForCausalLM

    theta = {"rope_type": "default", "rope_theta": 1_000_000.0}
    model = Qwen3ForCausalLM(Qwen3Config(**FIGURES, rope_parameters=theta, tie_word_embeddings=True))
    config = {
        "train_micro_batch_size_per_gpu": SEQUENCES,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": PRECISION == "bf16"},
        "zero_optimization": {"stage": options["stage"], "stage3_param_persistence_threshold": 10_000},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
    }
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimiser, config=config)

    def step(batch: Any) -> None:
        engine.backward(engine(batch.input_ids, labels=batch.labels).loss)
        engine.step()

    return step
