"""`classifiers`: labelled examples, reference texts and a sample of the corpus ─▶ quality and toxicity classifiers.

Leaves a folder for each, `quality` and `toxicity`, and in the manifest's details what they reach on held-out examples
and the thresholds that `filter` takes where the recipe asks for a keep ratio or a precision.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qwen_core.artifacts import Outcome, upload
from qwen_core.data.classify.examples import Columns, Example, read_examples, split_examples
from qwen_core.data.classify.measures import (
    average_precision,
    calibration_error,
    f1_score,
    keep_threshold,
    precision_threshold,
    reliability,
    roc_auc,
    roc_curve,
)
from qwen_core.data.classify.model import ALL, Settings, scores, train_classifier
from qwen_core.data.classify.sample import sample_documents
from qwen_core.data.language import label
from qwen_core.errors import InputError
from qwen_core.jobs.context import Context
from qwen_core.jobs.corpus import document_files
from qwen_core.jobs.sources import example_paths
from qwen_core.parts import read_rows
from qwen_core.tracking.classifier_figures import reliability_figure, roc_figure

POSITIVE = {"quality": "high", "toxicity": "toxic"}
"""The label whose chance is each classifier's score."""

SAMPLE = "ingest"
"""The word for a sample of the ingested corpus, among the inputs."""

_NEGATIVE = {"quality": "low", "toxicity": "clean"}
_SAMPLED_FILES = 64  # of a corpus: bounds what is read
_MIN_MEASURED = 20  # held-out examples of each label, below which a language is not measured by itself

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def run(context: Context) -> Outcome:
    """Train the classifiers that the recipe names, measure them on held-out examples, and find the thresholds.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts examples.

    Raises:
        InputError: A file of examples is missing or has none that can be used, or a label has none.
    """
    section, seed = context.section, context.recipe.seed
    sample = _sample(context)
    outcome = Outcome(details={"thresholds": {}, "heldout": {}, "examples": {}})
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(section.train):
            positive = POSITIVE[name]
            examples = _labelled(_examples(context, name, sample, outcome))
            train, heldout = split_examples(examples, section.heldout_ratio, seed)
            folder = Path(place) / name
            sizes = train_classifier(train, positive, folder, Path(scratch), _settings(context, name))
            chances = _scored(folder, heldout)
            _report(context, outcome, name, heldout, chances)
            outcome.details["examples"][name] = {"training": sizes, "heldout": len(heldout)}
            outcome.details["thresholds"][name] = _thresholds(context, name, folder, heldout, chances, sample)
            outcome.rows += len(examples)
            context.progress(number + 1, len(section.train), "models")
        upload(place, context.attempt.data_uri)
    return outcome


def _settings(context: Context, name: str) -> Settings:
    section = context.section
    fasttext = {
        "epoch": section.epochs,
        "lr": section.learning_rate,
        "dim": section.dim,
        "wordNgrams": section.word_ngrams,
        "seed": context.recipe.seed % 2**31,
    }
    return Settings(
        views=getattr(section, f"{name}_views"),
        min_language_examples=section.min_language_examples,
        folds=section.calibration_folds,
        fasttext=tuple(fasttext.items()),
    )


def _examples(context: Context, name: str, sample: dict[str, list[str]], outcome: Outcome) -> list[Example]:
    """Read everything that a classifier learns from; rows that cannot be used are counted."""
    labels = (POSITIVE[name], _NEGATIVE[name])
    wanted: list[tuple[str, Path, str | None]]
    wanted = [(input_name, path, None) for input_name, path in example_paths(context.recipe, name).items()]
    if name == "quality":
        for side, word in (("positives", labels[0]), ("negatives", labels[1])):
            inputs = getattr(context.section, f"quality_{side}")
            wanted += [(entry, Path(entry).expanduser(), word) for entry in inputs if entry != SAMPLE]
    found = []
    for input_name, path, fixed in wanted:
        columns = replace(_columns(context, input_name, path), fixed_label=fixed)
        examples, drops = read_examples(path, columns, labels)
        found += examples
        for reason, count in drops.items():
            outcome.drops[reason] = outcome.drops.get(reason, 0) + count
    if name == "quality" and SAMPLE in context.section.quality_negatives:
        found += [Example(text, labels[1], language) for language, texts in sample.items() for text in texts]
    return found


def _columns(context: Context, name: str, path: Path) -> Columns:
    mapped = context.section.columns.get(name) or context.section.columns.get(path.name)
    return Columns(**mapped.model_dump()) if mapped else Columns()


def _labelled(examples: list[Example]) -> list[Example]:
    """Label the language of examples of which nobody told it."""
    unknown = [number for number, example in enumerate(examples) if example.language is None]
    if unknown:
        languages, _, _ = label(pa.array([examples[number].text for number in unknown]), find_code=False)
        for number, language in zip(unknown, languages.to_pylist(), strict=True):
            examples[number] = replace(examples[number], language=language)
    return examples


def _sample(context: Context) -> dict[str, list[str]]:
    """Draw documents of each language from the ingested corpus, where the recipe needs them; never source code."""
    section = context.section
    if SAMPLE not in section.quality_negatives and section.quality_keep_ratio is None:
        return {}
    sample = sample_documents(_tables(context), section.sample_documents, context.recipe.seed)
    sample.pop("code", None)
    if not sample:
        raise InputError("the ingested corpus has no document to sample; take 'ingest' out of quality_negatives")
    return sample


def _tables(context: Context) -> Iterator[pa.Table]:
    """Read the corpus, of a large one files at even distances."""
    files = document_files(context.inputs["ingest"])
    step = max(1, len(files) / _SAMPLED_FILES)
    for number in range(min(len(files), _SAMPLED_FILES)):
        yield read_rows(files[int(number * step)], ["id", "text", "language"])


def _scored(folder: Path, examples: list[Example]) -> Floats:
    return scores(str(folder), [e.text for e in examples], [e.language for e in examples])


def _groups(heldout: list[Example], truth: Bools) -> dict[str, Bools]:
    """Mark all held-out examples, and those of each language that has enough of both labels."""
    groups = {ALL: np.ones(len(heldout), bool)}
    for language in sorted({example.language or "und" for example in heldout}):
        mask = np.array([(example.language or "und") == language for example in heldout])
        if min((mask & truth).sum(), (mask & ~truth).sum()) >= _MIN_MEASURED and not mask.all():
            groups[language] = mask
    return groups


def _report(context: Context, outcome: Outcome, name: str, heldout: list[Example], chances: Floats) -> None:
    """Measure a classifier, all together and by language: metrics, details and figures."""
    truth = np.array([example.label == POSITIVE[name] for example in heldout], bool)
    groups = _groups(heldout, truth)
    for language, mask in groups.items():
        prefix = name if language == ALL else f"{name}.{language}"
        measured = _measures(chances[mask], truth[mask])
        outcome.metrics |= {f"{prefix}.{n}": value for n, value in measured.items() if not math.isnan(value)}
    tables = {language: reliability(chances[mask], truth[mask]) for language, mask in groups.items()}
    outcome.details["heldout"][name] = tables
    curves = {language: roc_curve(chances[mask], truth[mask]) for language, mask in groups.items()}
    context.run.log_figure(roc_figure(curves, f"{name}: ROC on held-out examples"), f"plots/{name}_roc.png")
    context.run.log_figure(reliability_figure(tables, f"{name}: do scores come true?"), f"plots/{name}_reliability.png")


def _measures(chances: Floats, truth: Bools) -> dict[str, float]:
    return {
        "roc_auc": roc_auc(chances, truth),
        "average_precision": average_precision(chances, truth),
        "f1": f1_score(chances, truth),
        "calibration_error": calibration_error(chances, truth),
        "heldout_examples": float(len(truth)),
    }


def _thresholds(
    context: Context,
    name: str,
    folder: Path,
    heldout: list[Example],
    chances: Floats,
    sample: dict[str, list[str]],
) -> dict[str, float]:
    """Find the thresholds by language that the recipe asks for; none where it asks for none."""
    section = context.section
    if name == "quality" and section.quality_keep_ratio is not None:
        return _keep_thresholds(folder, heldout, sample, section)
    if name == "toxicity" and section.toxicity_target_precision is not None:
        truth = np.array([example.label == POSITIVE[name] for example in heldout], bool)
        found = {
            language: precision_threshold(chances[mask], truth[mask], section.toxicity_target_precision)
            for language, mask in _groups(heldout, truth).items()
        }
        # Where no threshold is precise enough, nothing is dropped.
        return {language: 1.0 if threshold is None else threshold for language, threshold in found.items()}
    return {}


def _keep_thresholds(
    folder: Path, heldout: list[Example], sample: dict[str, list[str]], section: Any
) -> dict[str, float]:
    """Find the scores that the wanted share of the corpus reaches, by documents that no model learnt from."""
    unseen = {example.text for example in heldout} if SAMPLE in section.quality_negatives else None
    values: dict[str, Floats] = {}
    for language, texts in sample.items():
        chosen = [text for text in texts if unseen is None or text in unseen]
        if chosen:
            values[language] = scores(str(folder), chosen, [language] * len(chosen))
    if not values:
        raise InputError("no sampled document is held out: raise classifiers.heldout_ratio or sample_documents")
    values[ALL] = np.concatenate(list(values.values()))
    return {language: keep_threshold(scored, section.quality_keep_ratio) for language, scored in values.items()}
