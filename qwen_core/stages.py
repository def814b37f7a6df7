"""The stages, in the order of the data's journey: which DAG runs each, what it reads, what shapes its result.

A stage is one word, and the word is its job module, recipe section, Airflow task id, output folder, MLflow
run type and test file. Whoever needs the list (jobs, DAGs, the command line) reads it here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: The stage's word.
        dag: The DAG that runs it.
        inputs: Stages whose artifacts it reads.
        sections: Recipe sections that shape its result, and so its fingerprint.
        version: Raised when the code changes what the stage makes from the same input and recipe.
        summary: One line for help texts and the Airflow page.
        is_training: Whether it runs on the training pool (GPUs, or the training workers of a laptop).
    """

    name: str
    dag: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    version: int
    summary: str
    is_training: bool = False


_STAGES = (
    Stage(
        "ingest",
        "corpus",
        (),
        ("ingest",),
        2,
        "Read sources, extract text, normalise, chunk, label the language",
    ),
    Stage(
        "classifiers",
        "corpus",
        ("ingest",),
        ("classifiers",),
        2,
        "Train the quality and toxicity classifiers on labelled examples and samples of the corpus",
    ),
    Stage(
        "filter",
        "corpus",
        ("ingest", "classifiers"),
        ("filter",),
        2,
        "Drop what quality rules, classifiers and keyword lists reject, and count each reason",
    ),
    Stage("dedup", "corpus", ("filter",), ("dedup",), 2, "Drop exact and near duplicates (MinHash LSH)"),
    Stage(
        "tokenizer",
        "pretrain",
        ("dedup",),
        ("mix", "tokenizer"),
        2,
        "Train a byte-level BPE with Qwen's pre-tokenisation",
    ),
    Stage(
        "pack",
        "pretrain",
        ("dedup", "tokenizer"),
        ("mix", "pack"),
        3,
        "Tokenise and pack into fixed-length sequences",
    ),
    Stage(
        "pretrain",
        "pretrain",
        ("tokenizer", "pack"),
        ("model", "parallel", "pretrain"),
        2,
        "Train the language model, from scratch or from weights that exist",
        is_training=True,
    ),
    Stage("instruct", "align", ("tokenizer",), ("instruct",), 2, "Render instruction data as tokens of conversations"),
    Stage(
        "sft",
        "align",
        ("pretrain", "instruct"),
        ("parallel", "sft"),
        2,
        "Fine-tune on instructions, loss on the assistant's tokens only",
        is_training=True,
    ),
    Stage(
        "preference", "align", ("tokenizer",), ("preference",), 2, "Render preference pairs as tokens of conversations"
    ),
    Stage(
        "dpo",
        "align",
        ("sft", "preference"),
        ("parallel", "dpo"),
        2,
        "Align with preferences (direct preference optimisation)",
        is_training=True,
    ),
    Stage(
        "evaluate",
        "release",
        ("pack", "instruct", "preference", "pretrain", "sft", "dpo"),
        ("evaluate",),
        3,
        "Measure bits per byte, answers, preferences; write sample generations",
        is_training=True,
    ),
    Stage(
        "release",
        "release",
        ("evaluate", "dpo"),
        ("release",),
        2,
        "Register the model; champion when it is better",
    ),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _STAGES}
"""Every stage by its word, in running order."""

DAGS: tuple[str, ...] = tuple(dict.fromkeys(stage.dag for stage in _STAGES))
"""The DAGs in the order in which their assets join them."""


def stages_of(dag: str) -> list[Stage]:
    """List the stages that a DAG runs, in running order.

    Args:
        dag: A word of `DAGS`.

    Returns:
        The stages; empty for an unknown DAG.
    """
    return [stage for stage in _STAGES if stage.dag == dag]
