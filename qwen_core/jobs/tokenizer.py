"""`tokenizer`: deduplicated documents ─▶ a byte-level BPE, or an existing tokenizer, measured on held-out documents.

    documents ─▶ bytes by cell ─▶ mix ─▶ hold out by hash of id ─┬─▶ a share of each cell ─▶ train ─┬─▶ measure
                                                                 └─▶ the lowest draws of each language ─┘

Reads `dedup`. Leaves `tokenizer/` (tokenizer.json, tokenizer_config.json). Only the sample comes to the driver, and
the order in which it comes does not matter. With `tokenizer.import_path` nothing is trained.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from qwen_core.artifacts import Outcome, upload
from qwen_core.data.mix import Cell, cells_of, draws, is_below, repeats
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import document_files
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
    files = document_files(context.inputs["dedup"])
    sizes = cell_sizes(context.inputs["dedup"])
    planned = plan({cell: size / BYTES_PER_TOKEN for cell, (_, size) in sizes.items()}, budget_of(context.recipe.mix))
    heldout = heldout_shares(sizes, section.validation_ratio)
    mixed_bytes = sum(size * planned.weights[cell] * (1 - heldout[cell[0]]) for cell, (_, size) in sizes.items())
    share = min(1.0, section.max_sample_bytes / max(1.0, mixed_bytes)) if given is None else 0.0
    options = {
        "rates": {cell: weight * share for cell, weight in planned.weights.items()},
        "heldout": heldout,
        "max_measured": section.max_measured_documents,
        "seed": context.recipe.seed,
    }
    documents = ray.data.read_parquet(files, columns=["id", "text", "language", "source"])
    sample = _Sample(section.max_measured_documents)
    texts = _texts(context, documents.map_batches(sampled, fn_kwargs=options, batch_format="pyarrow"), sample)
    if given is None:
        given = train_tokenizer(texts, section.vocab_size, section.min_frequency)
    else:
        for _ in texts:
            pass  # only what was held out is wanted
    with tempfile.TemporaryDirectory() as folder:
        template = told_template(Path(section.import_path).expanduser()) if section.import_path else (None, None)
        save_tokenizer(given, Path(folder) / "tokenizer", *template)
        tokenizer = load_tokenizer(Path(folder) / "tokenizer")
        upload(folder, context.attempt.data_uri)
    figures = measure(tokenizer, {name: [text for _, text in kept] for name, kept in sorted(sample.heldout.items())})
    _warn_of_losses(figures)
    details = {
        "vocab_size": tokenizer.vocab_size,
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
    return Outcome(rows=tokenizer.vocab_size, metrics=figures, details=details)


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
