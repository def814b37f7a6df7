"""What `tokenizer` and `pack` need to mix a corpus: its size by language and source, as bytes or as tokens.

    the corpus's funnel ─▶ bytes by cell ─▶ [tokens of a sample of each cell] ─▶ budgets ─▶ a weight for each cell

Tokens take one more pass over the corpus, cheap beside encoding it; what comes back is one row for each cell and batch.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from qwen_core.artifacts import Manifest, local_copy
from qwen_core.config.tokens import Mix
from qwen_core.data import tally
from qwen_core.data.budget import Budget, Mixture, mixture
from qwen_core.data.mix import Cell, cells_of, draws, is_below
from qwen_core.tokenizer import ChatTokenizer, load_tokenizer

BYTES_PER_TOKEN = 4.0
"""What a token is taken for before there is a tokenizer: about right for English, Chinese and code alike."""

_COLUMNS = ["id", "text", "language", "source"]
_MEASURED_BYTES, _MEASURED_DOCUMENTS = 1_000_000, 50
_LOG = logging.getLogger(__name__)


def budget_of(mix: Mix) -> Budget:
    """Take the recipe's section `mix` as plain values.

    Args:
        mix: The section.

    Returns:
        The same, without pydantic.
    """
    return Budget(**mix.model_dump())


def cell_sizes(corpus: Manifest) -> dict[Cell, tuple[int, int]]:
    """Look up documents and bytes of a corpus by language and source; its funnel has counted them.

    Args:
        corpus: Of `dedup`.

    Returns:
        Documents and UTF-8 bytes of text by cell, sorted.
    """
    rows = tally.kept_rows(corpus.details["funnel"])
    return {
        cell: figures for cell, figures in sorted(((r[1] or "unknown", r[0] or "unknown"), (r[2], r[3])) for r in rows)
    }


def cell_tokens(
    files: Sequence[str], sizes: Mapping[Cell, tuple[int, int]], tokenizer_folder: str, seed: int
) -> dict[Cell, float]:
    """Estimate the tokens of each cell from a sample of its documents, drawn by their ids.

    Args:
        files: Parquet files of documents.
        sizes: As `cell_sizes` gave them; a small cell is encoded whole.
        tokenizer_folder: With `tokenizer.json`.
        seed: The recipe's.

    Returns:
        Tokens by cell, each document's separator included.
    """
    shares = {
        cell: max(_MEASURED_BYTES / max(1, size), _MEASURED_DOCUMENTS / count) for cell, (count, size) in sizes.items()
    }
    options = {"shares": shares, "seed": seed, "folder": tokenizer_folder}
    documents = ray.data.read_parquet(list(files), columns=_COLUMNS)
    counted = documents.map_batches(_count_tokens, fn_kwargs=options, batch_format="pyarrow")  # type: ignore[arg-type]
    measured = _summed(counted)
    tokens, whole = (sum(values) for values in zip(*measured.values(), strict=True)) if measured else (1, 4)
    estimates = {}
    for cell, (count, size) in sizes.items():
        here, seen = measured.get(cell, (tokens, whole))  # a cell without a sample is taken for an average one
        estimates[cell] = count + size * here / max(1, seen)
    return estimates


def plan(tokens: Mapping[Cell, float], budget: Budget) -> Mixture:
    """Turn budgets into weights, and warn in the job's log of what cannot be.

    Args:
        tokens: Of each cell.
        budget: What the recipe asks for.

    Returns:
        The weights.
    """
    planned = mixture(tokens, budget)
    for warning in planned.warnings:
        _LOG.warning(warning)
    return planned


def report(cells: Mapping[Cell, Mapping[str, float]]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Tell what a mix became.

    Args:
        cells: For each `documents`, `bytes` (of the corpus, once), `taken_documents`, `taken_bytes` (with repeats) and
            `tokens` (taken).

    Returns:
        A row for each cell, most tokens first; metrics `mix_tokens/<name>`, `mix_share/<name>`, `mix_epochs/<name>` of
        each language and of each source (a source of a language's name as `source.<name>`).
    """
    rows: list[dict[str, Any]] = []
    for (language, source), figures in cells.items():
        epochs = figures["taken_bytes"] / max(1, figures["bytes"])
        rows.append({"language": language, "source": source, **figures, "epochs": round(epochs, 4)})
    rows.sort(key=lambda row: (-row["tokens"], row["language"], row["source"]))
    total = sum(row["tokens"] for row in rows)
    metrics: dict[str, float] = {}
    languages = {row["language"] for row in rows}
    for position, kind in enumerate(("language", "source")):
        for name in sorted({cell[position] for cell in cells}):
            mine = [row for row in rows if row[kind] == name]
            title = f"source.{name}" if kind == "source" and name in languages else name
            tokens = sum(row["tokens"] for row in mine)
            metrics[f"mix_tokens/{title}"] = tokens
            metrics[f"mix_share/{title}"] = tokens / max(1, total)
            taken, held = (sum(row[key] for row in mine) for key in ("taken_bytes", "bytes"))
            metrics[f"mix_epochs/{title}"] = taken / max(1, held)
    return rows, metrics


@functools.lru_cache(maxsize=1)
def worker_tokenizer(folder: str) -> ChatTokenizer:
    """Open a tokenizer once in each worker.

    Args:
        folder: URI of a folder with `tokenizer.json`; the worker may be on another machine than the driver.

    Returns:
        The tokenizer.
    """
    return load_tokenizer(local_copy(folder))


def _count_tokens(batch: pa.Table, shares: Mapping[Cell, float], seed: int, folder: str) -> pa.Table:
    cells, members = cells_of(batch["language"], batch["source"])
    share = np.array([shares[cell] for cell in cells])[members]
    chosen = is_below(draws(batch["id"], seed, "measure"), share)
    texts = batch["text"].filter(pa.array(chosen))
    _, lengths = worker_tokenizer(folder).encode_documents(texts.to_pylist())
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    return _counted(cells, members[chosen], lengths, sizes)


def _counted(cells: Sequence[Cell], members: np.ndarray, first: np.ndarray, second: np.ndarray) -> pa.Table:
    """Add up two figures of each document by cell."""
    sums = [np.bincount(members, weights=figures, minlength=len(cells)).astype(np.int64) for figures in (first, second)]
    names = [pa.array([cell[position] for cell in cells], pa.string()) for position in (0, 1)]
    return pa.table({"language": names[0], "source": names[1], "first": sums[0], "second": sums[1]})


def _summed(counted: ray.data.Dataset) -> dict[Cell, tuple[int, int]]:
    """Add up the batches' figures; integers, so the order in which they come does not matter."""
    sums: dict[Cell, tuple[int, int]] = {}
    batch: pa.Table  # for Ray any of its formats
    for batch in counted.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in batch.to_pylist():
            cell = (row["language"], row["source"])
            first, second = sums.get(cell, (0, 0))
            sums[cell] = (first + row["first"], second + row["second"])
    return {cell: figures for cell, figures in sorted(sums.items()) if any(figures)}
