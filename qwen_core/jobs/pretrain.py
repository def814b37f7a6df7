"""`pretrain`: packed sequences ─▶ a language model, from scratch or from weights that exist.

Reads `tokenizer`, `pack`; with `pretrain.init_from` also a model. Leaves `model/` (Hugging Face folder) and
`history.jsonl`.
"""

from __future__ import annotations

import pyarrow.compute as pc

from qwen_core.artifacts import Outcome, local_copy, split_files
from qwen_core.config.model import Model
from qwen_core.config.training import Pretrain
from qwen_core.errors import InputError, RecipeError
from qwen_core.jobs.context import Context
from qwen_core.jobs.folders import check_ids, check_positions, check_same_tokenizer, check_tokenizer, open_folder
from qwen_core.jobs.found import find_model
from qwen_core.jobs.training import Start, run_training, start_from
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.tokenizer import load_tokenizer
from qwen_core.train.conversations import read_table
from qwen_core.train.pretrain import PretrainTask
from qwen_core.train.weights import FolderWeights, FreshWeights


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
    pack = context.inputs["pack"]
    start, section, told = _start(context)
    check_packed(split_files(pack, "train") + split_files(pack, "validation"), start.config.vocab_size)

    def make_task(_: CausalLM) -> PretrainTask:  # on a worker, perhaps of another machine
        return PretrainTask(split_files(pack, "train"), split_files(pack, "validation"), section.micro_batch_size)

    print(f"[pretrain] {told}", flush=True)
    tokenizer_uri = context.inputs["tokenizer"].path("tokenizer")
    outcome = run_training(context, start, make_task, tokenizer_uri, section)
    is_continued = isinstance(start.source, FolderWeights)
    outcome.details |= {"start": told, "is_continued": is_continued}
    context.run.set_tags({"qwen_core.start": told[:500]})
    return outcome


def continued(section: Pretrain) -> Pretrain:
    """Give a pretraining that goes on its own steps, warm-up and learning rate.

    Weights that have learnt with a rate that fell learn little more at its end: it rises once more, and falls again
    over the new steps (Ibrahim et al., 2024, Simple and Scalable Strategies to Continually Pre-train LLMs).

    Args:
        section: The recipe's; `continued` says how.

    Returns:
        The section with what is obeyed.
    """
    wanted = section.continued
    steps = max(1, round(section.max_steps * wanted.steps_ratio))
    warmup = section.warmup_steps if wanted.warmup_ratio is None else round(steps * wanted.warmup_ratio)
    changes = {
        "max_steps": steps,
        "warmup_steps": min(warmup, steps),
        "learning_rate": section.learning_rate * wanted.learning_rate_ratio,
        "muon_learning_rate": section.muon_learning_rate * wanted.learning_rate_ratio,
    }
    return section.model_copy(update=changes)


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


def _start(context: Context) -> tuple[Start, Pretrain, str]:
    """Start from a seed, or from weights that exist and fit; with the settings of such a start, and words for it."""
    pack, section = context.inputs["pack"], context.section
    if section.init_from is None:
        return _fresh(context), section, f"starts from seed {context.recipe.seed}"
    longest = pack.details["max_seq_len"]
    tracking_uri = getattr(context.run, "tracking_uri", None)
    found = find_model(section.init_from, context.store, tracking_uri, ("pretrain",))
    folder = open_folder(found.folder)
    ours = load_tokenizer(local_copy(context.inputs["tokenizer"].path("tokenizer")))
    try:
        check_tokenizer(ours, folder.config, found.title)
        if (folder.place / "tokenizer.json").is_file():
            remedy = f"Set tokenizer.import_path to {folder.place} and run tokenizer and pack again"
            check_same_tokenizer(ours, load_tokenizer(folder.place), "the corpus", found.title, remedy)
    except InputError as fault:
        if section.if_new_tokenizer == "refuse":
            raise
        told = f"starts anew from seed {context.recipe.seed}, not from {found.title}, for the tokenizer is new: {fault}"
        return _fresh(context), section, told.partition(" Set tokenizer.import_path")[0]
    check_positions(folder.config, longest, "the data of 'pack'", "Lower pack.max_seq_len and run pack again")
    obeyed = continued(section)
    return start_from(folder, found.uri), obeyed, f"goes on from {found.title} for {obeyed.max_steps} steps"


def _fresh(context: Context) -> Start:
    pack, recipe = context.inputs["pack"], context.recipe
    config = model_config(recipe.model, pack.details["vocab_size"], pack.details["max_seq_len"])
    return Start(config, FreshWeights(config, recipe.seed, recipe.model.init, recipe.model.init_base_width))
