"""`classifiers`: labelled examples ─▶ fastText models for quality and toxicity.

Leaves `quality.bin`, `toxicity.bin`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from qwen_core.artifacts import Outcome, upload
from qwen_core.data.classify import Example, f1_score, read_examples, roc_auc, scores, split_examples, train_classifier
from qwen_core.jobs.context import Context
from qwen_core.jobs.sources import example_paths

POSITIVE = {"quality": "high", "toxicity": "toxic"}
"""The label whose probability is each model's score."""


def run(context: Context) -> Outcome:
    """Train both models and measure them on held-out examples.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts examples.
    """
    section, seed = context.section, context.recipe.seed
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as scratch:
        for number, (name, positive) in enumerate(POSITIVE.items()):
            examples = [e for path in example_paths(context.recipe, name).values() for e in read_examples(path)]
            train, heldout = split_examples(examples, section.heldout_ratio, seed)
            target = Path(place) / f"{name}.bin"
            train_classifier(
                train,
                target,
                Path(scratch),
                epoch=section.epochs,
                lr=section.learning_rate,
                dim=section.dim,
                wordNgrams=section.word_ngrams,
                seed=seed,
            )
            outcome.rows += len(examples)
            outcome.metrics |= {f"{name}.{n}": v for n, v in _measure(target, heldout, positive).items()}
            context.progress(number + 1, len(POSITIVE), "models")
        upload(place, context.attempt.data_uri)
    return outcome


def _measure(model: Path, heldout: list[Example], positive: str) -> dict[str, float]:
    values = scores(str(model), [example.text for example in heldout], positive)
    truth = np.array([example.label == positive for example in heldout])
    return {"roc_auc": roc_auc(values, truth), "f1": f1_score(values, truth), "heldout_examples": float(len(heldout))}
