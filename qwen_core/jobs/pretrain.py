"""`pretrain`: packed sequences ─▶ a language model, from scratch or from weights that exist.

Reads `tokenizer`, `pack`; with `pretrain.init_from` also a model. Leaves `model/` (Hugging Face folder) and
`history.jsonl`.
"""

from __future__ import annotations

import pyarrow.compute as pc

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.config.model import Model
from qwen_core.errors import InputError, RecipeError
from qwen_core.jobs.context import Context
from qwen_core.jobs.folders import check_ids, check_positions, check_same_tokenizer, check_tokenizer, open_folder
from qwen_core.jobs.found import find_model
from qwen_core.jobs.training import Start, run_training, split_files, start_from
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.tokenizer import load_tokenizer
from qwen_core.train.conversations import read_table
from qwen_core.train.pretrain import PretrainTask
from qwen_core.train.weights import FreshWeights


def run(context: Context) -> Outcome:
    """Train.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with first and last loss and bits per byte.

    Raises:
        RecipeError: The recipe's architecture does not fit the data.
        InputError: The data is empty, or does not fit the model to start from.
        ArtifactError: The model to start from is not whole, or a file of the data is broken.
    """
    pack, section = context.inputs["pack"], context.section
    start = _start(context)
    check_packed(split_files(pack, "train") + split_files(pack, "validation"), start.config.vocab_size)

    def make_task(_: CausalLM) -> PretrainTask:  # on a worker, perhaps of another machine
        return PretrainTask(split_files(pack, "train"), split_files(pack, "validation"), section.micro_batch_size)

    return run_training(context, start, make_task, context.inputs["tokenizer"].path("tokenizer"))


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
    return ModelConfig(vocab_size=wanted, **section.architecture())


def check_packed(files: list[str], vocab_size: int) -> None:
    """Look through packed sequences before workers start: nothing may be broken, nor beyond the vocabulary.

    Args:
        files: Arrow files of both splits.
        vocab_size: Rows of the model's embedding.

    Raises:
        ArtifactError: A file is broken.
        InputError: All files are empty, or an id has no embedding.
    """
    rows, largest = 0, 0
    for file in files:
        table = read_table(file)
        rows += table.num_rows
        for chunk in table["input_ids"].chunks:  # one at a time: the whole may be larger than memory
            largest = max(largest, int(pc.max(chunk.flatten()).as_py() or 0))
    if not rows:
        raise InputError("the data of 'pack' holds no sequence at all: give more input, or loosen the filter section")
    check_ids(largest, vocab_size, "the data of 'pack'")


def _start(context: Context) -> Start:
    """Start from a seed, or from weights that exist and fit."""
    pack, section = context.inputs["pack"], context.section
    longest, recipe = pack.details["max_seq_len"], context.recipe
    if section.init_from is None:
        config = model_config(recipe.model, pack.details["vocab_size"], longest)
        return Start(config, FreshWeights(config, recipe.seed, recipe.model.init, recipe.model.init_base_width))
    tracking_uri = getattr(context.run, "tracking_uri", None)
    found = find_model(section.init_from, context.store, tracking_uri, ("pretrain",))
    folder = open_folder(found.folder)
    ours = load_tokenizer(local_copy(context.inputs["tokenizer"].path("tokenizer")))
    check_tokenizer(ours, folder.config, found.title)
    if (folder.place / "tokenizer.json").is_file():
        remedy = f"Set tokenizer.import_path to {folder.place} and run tokenizer and pack again"
        check_same_tokenizer(ours, load_tokenizer(folder.place), "the corpus", found.title, remedy)
    check_positions(folder.config, longest, "the data of 'pack'", "Lower pack.max_seq_len and run pack again")
    return start_from(folder, found.uri)
