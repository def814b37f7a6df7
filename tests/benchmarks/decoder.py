"""A training step of the demo's model, forward and backward: our decoder against transformers' Qwen3."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from qwen_core.config import load_recipe
from qwen_core.model import CausalLM, ModelConfig, initialise
from tests.benchmarks.measure import compare
from tests.benchmarks.precision import DTYPE, PRECISION

_SEQUENCES = 8


def main() -> None:
    """Time both on one thread, as a worker of the demo has it."""
    recipe = load_recipe("demo")
    torch.set_num_threads(recipe.parallel.threads_per_worker)
    figures = recipe.model.model_dump(exclude={"vocab_size", "model_type"}) | {
        "vocab_size": recipe.tokenizer.vocab_size
    }
    ours = CausalLM(ModelConfig(**figures)).to(DTYPE)
    initialise(ours, seed=1)
    theta = figures.pop("rope_theta")
    config = Qwen3Config(**figures, rope_parameters={"rope_type": "default", "rope_theta": theta})
    theirs = Qwen3ForCausalLM(config).to(DTYPE)
    ids = torch.randint(0, recipe.tokenizer.vocab_size, (_SEQUENCES, recipe.pack.max_seq_len))

    def step(model: torch.nn.Module, loss: torch.Tensor) -> None:
        loss.backward()
        model.zero_grad()

    millions = sum(parameter.numel() for parameter in ours.parameters()) / 1e6
    compare(
        f"Forward and backward, {millions:.1f}M parameters, {PRECISION}, one thread",
        "tokens/s",
        ids.numel(),
        lambda: step(ours, ours(ids, labels=ids)[:, 1:].mean()),
        {"transformers": lambda: step(theirs, theirs(ids, labels=ids).loss)},
    )
