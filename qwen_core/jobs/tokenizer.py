"""`tokenizer`: deduplicated documents ─▶ a byte-level BPE, or an existing tokenizer, measured on held-out documents.

    documents ─▶ bytes by cell ─▶ mix ─▶ hold out by hash of id ─┬─▶ a share of each cell ─▶ train ─┬─▶ measure
                                                                 └─▶ the lowest draws of each language ─┘

Reads `dedup`. Leaves `tokenizer/` (tokenizer.json, tokenizer_config.json). Only the sample comes to the driver, and
the order in which it comes does not matter. With `tokenizer.import_path` nothing is trained, and with
`tokenizer.keep_from` only where an earlier tokenizer has drifted.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from tokenizers import Tokenizer

from qwen_core.artifacts import Manifest, Outcome, local_copy, upload
from qwen_core.data.budget import Mixture
from qwen_core.data.mix import Cell, cells_of, draws, is_below, repeats
from qwen_core.jobs.base import stage_of
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import document_files
from qwen_core.jobs.kept import baseline_of, drift_of, tokens_per_byte
from qwen_core.jobs.mixing import BYTES_PER_TOKEN, budget_of, cell_sizes, plan
from qwen_core.tokenizer import (
    import_tokenizer,
    load_tokenizer,
    measure,
    save_tokenizer,
    told_template,
    train_tokenizer,
)

_LOG = logging.getLogger(__name__)
_TOLD_OF_DRIFT = ("kept", "drift_ratio")
_MEASURED_CHARS = 10_000
# A small language gives more than its share, or there would be nothing to measure on.
_WANTED_DOCUMENTS, _MOST_HELDOUT = 20, 0.2


@dataclass
class _Sample:
    """What came to the driver: documents and bytes by cell, and by language the texts to measure on, with draws."""

    max_measured: int
    documents: Counter[Cell] = field(default_factory=Counter)
    bytes: Counter[Cell] = field(default_factory=Counter)
    heldout: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add_heldout(self, language: str, found: list[tuple[int, str]]) -> None:
        """Keep the lowest draws, so that the blocks' order does not matter."""
        self.heldout[language] = sorted(self.heldout.get(language, []) + found)[: self.max_measured]

    def texts(self) -> dict[str, list[str]]:
        """Give the texts to measure on, by language."""
        return {name: [text for _, text in kept] for name, kept in sorted(self.heldout.items())}


def run(context: Context) -> Outcome:
    """Train on a sample of the mixed corpus, or import; measure on documents that were held out.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts the vocabulary, metrics tell how each language fares.

    Raises:
        InputError: The tokenizer to import is missing, broken or unfit.
    """
    section = context.section
    given = import_tokenizer(section.import_path, section.add_chat_tokens) if section.import_path else None
    connect_ray()
    if given is None and section.keep_from is not None:
        kept = stage_of(section.keep_from, "tokenizer.keep_from", "tokenizer", context.store)
        outcome, is_fit = _keep(context, kept)
        if is_fit:
            return outcome
        renewed = _make(context, None)
        names = ("kept", "drift_ratio", "drift", "max_drift_ratio", "keep_from", "decision")
        renewed.details |= {name: outcome.details[name] for name in names}
        renewed.metrics |= {n: value for n, value in outcome.metrics.items() if n.partition("/")[0] in _TOLD_OF_DRIFT}
        return renewed
    return _make(context, given)


def _keep(context: Context, kept: Manifest) -> tuple[Outcome, bool]:
    """Measure an earlier tokenizer on the present corpus, and take it where it fits; tell whether it does."""
    section = context.section
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(local_copy(kept.path("tokenizer")), Path(folder) / "tokenizer")
        tokenizer = load_tokenizer(Path(folder) / "tokenizer")
        sample, planned, _ = _sampled(context, 0.0, lambda texts: [None for _ in texts])
        figures = measure(tokenizer, sample.texts())
        baseline = baseline_of(kept)
        sizes: Counter[str] = Counter()
        for (language, _), (_, size) in cell_sizes(context.inputs["dedup"]).items():
            sizes[language] += size
        drift = drift_of(baseline["tokens_per_byte"], tokens_per_byte(figures), sizes)
        is_fit = drift.ratio <= section.max_drift_ratio
        if is_fit:
            upload(folder, context.attempt.data_uri)
    sign = "within" if is_fit else "beyond"
    decision = (
        f"{'kept' if is_fit else 'renewed'}: {100 * drift.ratio:+.1f}% tokens for a byte since it was trained, {sign} "
        f"the limit of {100 * section.max_drift_ratio:.1f}%"
    )
    print(f"[tokenizer] {decision}", flush=True)
    context.run.set_tags({"qwen_core.tokenizer": decision})
    details = _details(section, tokenizer.vocab_size, 0.0, sample, figures, planned) | {
        "kept": is_fit,
        "keep_from": kept.uri,
        "baseline": baseline,
        "drift_ratio": drift.ratio,
        "drift": drift.languages,
        "max_drift_ratio": section.max_drift_ratio,
        "decision": decision,
    }
    told = {"kept": float(is_fit), "drift_ratio": drift.ratio}
    told |= {f"drift_ratio/{language}": value for language, value in drift.languages.items()}
    return Outcome(rows=tokenizer.vocab_size, metrics=figures | told, details=details), is_fit


def _make(context: Context, given: Tokenizer | None) -> Outcome:
    """Train a tokenizer, or take one that was imported, and measure it."""
    section = context.section

    def learn(texts: Iterator[list[str]]) -> Tokenizer:
        if given is None:
            return train_tokenizer(texts, section.vocab_size, section.min_frequency)
        for _ in texts:
            pass  # only what was held out is wanted
        return given

    sample, planned, (share, made) = _sampled(context, 1.0 if given is None else 0.0, learn)
    with tempfile.TemporaryDirectory() as folder:
        template = told_template(Path(section.import_path).expanduser()) if section.import_path else (None, None)
        save_tokenizer(made, Path(folder) / "tokenizer", *template)
        tokenizer = load_tokenizer(Path(folder) / "tokenizer")
        upload(folder, context.attempt.data_uri)
    figures = measure(tokenizer, sample.texts())
    _warn_of_losses(figures)
    details = _details(section, tokenizer.vocab_size, share, sample, figures, planned)
    return Outcome(rows=tokenizer.vocab_size, metrics=figures, details=details)


def _sampled(
    context: Context, largest_share: float, learn: Callable[[Iterator[list[str]]], Any]
) -> tuple[_Sample, Mixture, tuple[float, Any]]:
    """Stream a sample of the mixed corpus to a learner, and gather what is held out.

    Returns the sample, the mix, and the share of the corpus that was taken with what the learner made of it.
    """
    section = context.section
    files = document_files(context.inputs["dedup"])
    sizes = cell_sizes(context.inputs["dedup"])
    planned = plan({cell: size / BYTES_PER_TOKEN for cell, (_, size) in sizes.items()}, budget_of(context.recipe.mix))
    heldout = heldout_shares(sizes, section.validation_ratio)
    mixed_bytes = sum(size * planned.weights[cell] * (1 - heldout[cell[0]]) for cell, (_, size) in sizes.items())
    share = min(largest_share, section.max_sample_bytes / max(1.0, mixed_bytes)) if largest_share else 0.0
    options = {
        "rates": {cell: weight * share for cell, weight in planned.weights.items()},
        "heldout": heldout,
        "max_measured": section.max_measured_documents,
        "seed": context.recipe.seed,
    }
    documents = ray.data.read_parquet(files, columns=["id", "text", "language", "source"])
    sample = _Sample(section.max_measured_documents)
    taken = documents.map_batches(sampled, fn_kwargs=options, batch_format="pyarrow")  # type: ignore[arg-type]
    return sample, planned, (share, learn(_texts(context, taken, sample)))


def _details(
    section: Any, vocab_size: int, share: float, sample: _Sample, figures: Mapping[str, float], planned: Mixture
) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "imported_from": section.import_path,
        "sample_share": share,
        "sample_bytes": sum(sample.bytes.values()),
        "sample": [
            {"language": cell[0], "source": cell[1], "documents": count, "bytes": sample.bytes[cell]}
            for cell, count in sorted(sample.documents.items())
        ],
        "measures": measures_table(figures, {name: len(kept) for name, kept in sample.heldout.items()}),
        "mix_warnings": list(planned.warnings),
    }


def _warn_of_losses(figures: Mapping[str, float]) -> None:
    """Tell of languages whose texts do not come back; only an imported tokenizer has any."""
    for name, value in figures.items():
        measured, _, language = name.partition("/")
        if measured == "round_trip_share" and value < 1:
            _LOG.warning(
                "%.1f%% of the held-out texts in '%s' do not come back from their tokens", 100 - 100 * value, language
            )


def heldout_shares(sizes: Mapping[Cell, tuple[int, int]], validation_ratio: float) -> dict[str, float]:
    """Decide the share of each language's documents that is kept from training.

    Args:
        sizes: Documents and bytes by cell.
        validation_ratio: The recipe's; `pack` holds out the same documents where its own ratio is the same.

    Returns:
        Shares by language; more than the ratio where a language has few documents.
    """
    documents: Counter[str] = Counter()
    for (language, _), (count, _) in sizes.items():
        documents[language] += count
    return {
        language: max(validation_ratio, min(_MOST_HELDOUT, _WANTED_DOCUMENTS / count))
        for language, count in documents.items()
    }


def measures_table(figures: Mapping[str, float], documents: Mapping[str, int]) -> list[dict[str, Any]]:
    """Lay figures named `<measure>/<language>` out as rows.

    Args:
        figures: As `measure` gives them.
        documents: Held-out documents by language.

    Returns:
        One row for each language.
    """
    rows: dict[str, dict[str, Any]] = {
        language: {"language": language, "documents": count} for language, count in sorted(documents.items())
    }
    for name, value in figures.items():
        measured, _, language = name.partition("/")
        rows[language][measured] = round(value, 4)
    return list(rows.values())


def sampled(
    batch: pa.Table, rates: Mapping[Cell, float], heldout: Mapping[str, float], max_measured: int, seed: int
) -> pa.Table:
    """Take the documents to train on, as often as their cell's rate says, and those to measure on.

    Args:
        batch: With `id`, `text`, `language`, `source`.
        rates: How often a document is taken, by cell; below 1 for all where the corpus is larger than the sample.
        heldout: Share of each language to measure on.
        max_measured: Documents of a language to measure on; more are not worth sending.
        seed: The recipe's.

    Returns:
        The taken rows: `text`, `language`, `source`, and `draw`, null for a document to train on.
    """
    cells, members = cells_of(batch["language"], batch["source"])
    draw = draws(batch["id"], seed, "heldout")
    languages = np.array([cell[0] for cell in cells])[members] if cells else np.zeros(0, dtype="U1")
    is_heldout = is_below(draw, np.array([heldout[cell[0]] for cell in cells])[members])
    times = repeats(batch["id"], np.array([rates[cell] for cell in cells])[members], seed, "sample")
    times[is_heldout] = 0
    measured = []
    for language in np.unique(languages[is_heldout]):
        mine = np.flatnonzero(is_heldout & (languages == language))
        measured.append(mine[np.argsort(draw[mine], kind="stable")[:max_measured]])
    taken = np.concatenate([np.repeat(np.arange(len(times)), times), *measured])
    marks = pa.array(draw[taken], mask=np.arange(len(taken)) < times.sum())
    rows = batch.select(["text", "language", "source"]).take(pa.array(taken))
    return rows.append_column("draw", marks)


def _texts(context: Context, taken: ray.data.Dataset, sample: _Sample) -> Iterator[list[str]]:
    """Stream the sample's texts to the trainer; count them, and put aside what is held out."""
    context.progress(0, 0, "documents")
    batch: pa.Table  # for Ray any of its formats
    for batch in taken.iter_batches(batch_size=1024, batch_format="pyarrow"):
        is_heldout = batch["draw"].is_valid()
        aside, batch = batch.filter(is_heldout), batch.filter(pc.invert(is_heldout))
        for row in aside.to_pylist():
            text = (row["text"] or "")[:_MEASURED_CHARS]
            sample.add_heldout(row["language"] or "unknown", [(row["draw"], text)])
        cells, members = cells_of(batch["language"], batch["source"])
        sizes = pc.fill_null(pc.binary_length(batch["text"]), 0).to_numpy()
        for number, cell in enumerate(cells):
            sample.documents[cell] += int((members == number).sum())
            sample.bytes[cell] += int(sizes[members == number].sum())
        context.progress(sample.documents.total(), 0, "documents")
        yield pc.fill_null(batch["text"], "").to_pylist()
