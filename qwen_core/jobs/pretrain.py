"""`pretrain`: packed sequences ─▶ a language model.

Reads `tokenizer`, `pack`. Leaves `model/` (Hugging Face folder) and `history.jsonl`.
"""

from __future__ import annotations

from qwen_core.artifacts import Outcome
from qwen_core.config.model import Model
from qwen_core.errors import RecipeError
from qwen_core.jobs.context import Context
from qwen_core.jobs.training import run_training, split_files
from qwen_core.model import CausalLM, ModelConfig, initialise
from qwen_core.train.pretrain import PretrainTask


def run(context: Context) -> Outcome:
    """Train from scratch.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with first and last loss and bits per byte.
    """
    pack = context.inputs["pack"]
    config = model_config(context.recipe.model, pack.details["vocab_size"], pack.details["max_seq_len"])
    seed, batch = context.recipe.seed, context.section.micro_batch_size

    def make_model() -> CausalLM:
        model = CausalLM(config)
        initialise(model, seed)
        return model

    def make_task(_: CausalLM) -> PretrainTask:
        return PretrainTask(split_files(pack, "train"), split_files(pack, "validation"), batch)

    return run_training(context, make_model, make_task, context.inputs["tokenizer"].path("tokenizer"))


def model_config(section: Model, vocab_size: int, max_seq_len: int) -> ModelConfig:
    """Fit the recipe's architecture to the tokenizer and the sequences.

    Args:
        section: The recipe's `model`.
        vocab_size: Of the tokenizer.
        max_seq_len: Of the packed sequences.

    Returns:
        The architecture; the vocabulary is the tokenizer's unless the recipe asks for a larger one.

    Raises:
        RecipeError: The recipe's vocabulary or positions are too few.
    """
    wanted = section.vocab_size or vocab_size
    if wanted < vocab_size:
        raise RecipeError(
            f"model.vocab_size ({wanted}) is smaller than the tokenizer's ({vocab_size}); raise or drop it"
        )
    if section.max_position_embeddings < max_seq_len:
        raise RecipeError(
            f"model.max_position_embeddings ({section.max_position_embeddings}) is smaller than "
            f"pack.max_seq_len ({max_seq_len}); raise it"
        )
    figures = section.model_dump(exclude={"vocab_size"})
    return ModelConfig(vocab_size=wanted, **figures)
