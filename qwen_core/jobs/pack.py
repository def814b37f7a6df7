"""`pack`: documents ─▶ fixed-length token sequences, and a held-out set by language and source.

    documents/part-i.parquet ─▶ hold out by hash of id ─▶ mix ─▶ encode ─▶ shuffle by hash ─▶ pack ─▶ train/part-i.arrow
                                     └─▶ lowest draws of each language and source ─▶ heldout.parquet ─┐
    heldout.parquet of an earlier run, where pack.heldout_from names it ──────────────────────────────┴─▶ pack

Each input file is one Ray task and gives one output file, so the result does not depend on the number of workers. Which
documents are taken, how often, and which are held out follows from their ids alone, so it does not depend on the files
either; how documents meet in a row does. An earlier run's held-out documents, and near duplicates of them, are never
trained on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.data.heldout import HeldOut, Likeness, digest_of, sizes_of
from qwen_core.data.mix import Cell, cells_of, draws, is_below, repeats, weight_of
from qwen_core.data.pack import pack
from qwen_core.data.packed import packed_schema
from qwen_core.errors import InputError
from qwen_core.jobs.base import stage_of
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import document_files, write_arrow
from qwen_core.jobs.heldout import fit_with, likeness_of, pack_heldout, pack_of, read_heldout
from qwen_core.jobs.lineage import HELDOUT_FILE, lineage_of
from qwen_core.jobs.mixing import budget_of, cell_sizes, cell_tokens, plan, report, worker_tokenizer
from qwen_core.jobs.parts import write_tables
from qwen_core.parts import parts_of, row_batches
from qwen_core.tokenizer import ChatTokenizer, load_tokenizer

_COLUMNS = ["id", "text", "language", "source"]
_SUMS = ("sequences", "tokens", "bytes", "documents", "cut_documents", "like_heldout")
_CELL_SUMS = ("documents", "bytes", "taken_documents", "taken_bytes", "tokens")


def run(context: Context) -> Outcome:
    """Encode, pack and write both splits.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts training sequences, `tokens` the tokens in them.

    Raises:
        InputError: The corpus is empty, or too small to hold anything out; or the mix asks for what is not there.
    """
    connect_ray()
    section, budget = context.section, budget_of(context.recipe.mix)
    files = document_files(context.inputs["dedup"])
    folder = context.inputs["tokenizer"].path("tokenizer")
    planned = _plan(context, files, folder)
    fixed = read_heldout(pack_of(section.heldout_from, context.store)) if section.heldout_from else None
    options = {
        "likeness": likeness_of(fixed, context.recipe) if fixed is not None else None,
        "section": section.model_dump(),
        "weights": planned.weights if planned else {},
        "languages": budget.languages,
        "sources": budget.sources,
        "seed": context.recipe.seed,
        "folder": folder,
        # The encoder starts a thread for each core of the machine, which in each of many tasks would be too many.
        "threads": max(1, int(ray.cluster_resources().get("CPU", 1)) // max(1, len(files))),
    }
    shared, work = ray.put(options), ray.remote(num_cpus=1)(_pack_file)
    weights = _file_weights(context, files)
    waiting = [
        work.remote(file, context.output(f"train/part-{index:05d}.arrow"), shared, weights[file])
        for index, file in enumerate(files)
    ]
    sums, cells, gathered = _gather(context, waiting)
    tokenizer = load_tokenizer(local_copy(folder))
    heldout = fixed
    if heldout is None:
        heldout = gathered.chosen(section.max_validation_sequences, section.max_seq_len, fit_with(tokenizer))
    write_tables([heldout], context.output(HELDOUT_FILE))
    validation = pack_heldout(heldout, tokenizer, section.max_seq_len)
    write_arrow(validation, context.output("validation/part-00000.arrow"))
    if not sums["sequences"] or not validation.num_rows:
        raise InputError(
            f"the corpus has {context.inputs['dedup'].rows} documents: too few for a training and a held-out split. "
            f"Give more input, loosen the filter section, or raise pack.validation_ratio ({section.validation_ratio})"
        )
    warnings = (planned or plan({cell: sums["tokens"] for cell, sums in cells.items()}, budget)).warnings
    outcome = _outcome(section, tokenizer.vocab_size, sums, cells, validation.num_rows, warnings)
    outcome.details |= {
        "heldout": sizes_of(heldout),
        "heldout_digest": digest_of(heldout),
        "heldout_from": section.heldout_from,
    }
    return outcome


def _plan(context: Context, files: list[str], folder: str) -> Any:
    """Turn a budget into weights; without one the recipe's weights are all there is, and nothing is counted."""
    budget, kept = budget_of(context.recipe.mix), 1 - context.section.validation_ratio
    if not budget.is_given or not files:
        return None
    tokens = cell_tokens(files, cell_sizes(context.inputs["dedup"]), folder, context.recipe.seed)
    return plan({cell: count * kept for cell, count in tokens.items()}, budget)


def _file_weights(context: Context, files: Sequence[str]) -> dict[str, float]:
    """Tell how often the documents of each file are taken, beside the mix: new ones and others."""
    section = context.section
    if section.new_from is None:
        return dict.fromkeys(files, 1.0)
    before = stage_of(section.new_from, "pack.new_from", "ingest", context.store)
    known = {part.fingerprint for part in parts_of(before)}
    corpus = context.inputs["dedup"]
    ingest = lineage_of(context.store, corpus)["ingest"]
    # filter and dedup make one part of each of ingest's, in its order
    is_new = [part.fingerprint not in known for part in parts_of(ingest)]
    pairs = zip(parts_of(corpus), is_new, strict=True)
    return {part.uri: section.new_weight if new else section.old_weight for part, new in pairs}


def _outcome(
    section: Any,
    vocab_size: int,
    sums: Mapping[str, int],
    cells: Mapping[Cell, Mapping[str, int]],
    validation_sequences: int,
    warnings: tuple[str, ...],
) -> Outcome:
    """Put counts into metrics and details."""
    mix, metrics = report(cells)
    by_language: dict[str, int] = {}
    for row in mix:
        if row["tokens"]:
            by_language[row["language"]] = by_language.get(row["language"], 0) + row["tokens"]
    metrics |= {
        "bytes_per_token": sums["bytes"] / max(1, sums["tokens"]),
        "validation_sequences": validation_sequences,
        "padding_ratio": 1 - sums["tokens"] / max(1, sums["sequences"] * section.max_seq_len),
        "cut_document_ratio": sums["cut_documents"] / max(1, sums["documents"]),
        "like_heldout_documents": sums["like_heldout"],
    }
    details = {
        "method": section.method,
        "max_seq_len": section.max_seq_len,
        "vocab_size": vocab_size,
        "train_sequences": sums["sequences"],
        "train_documents": sums["documents"],
        "cut_documents": sums["cut_documents"],
        "validation_sequences": validation_sequences,
        "tokens_by_language": by_language,
        "mix": mix,
        "mix_warnings": list(warnings),
    }
    columns = {field.name: str(field.type) for field in packed_schema(section.max_seq_len)}
    return Outcome(rows=sums["sequences"], tokens=sums["tokens"], columns=columns, metrics=metrics, details=details)


def _gather(context: Context, waiting: list[Any]) -> tuple[dict[str, int], dict[Cell, dict[str, int]], HeldOut]:
    """Wait for all files, reporting progress; add up what they tell, in whatever order they are done."""
    section = context.section
    sums = dict.fromkeys(_SUMS, 0)
    cells: dict[Cell, dict[str, int]] = {}
    heldout = HeldOut(section.max_validation_sequences * section.max_seq_len)
    pending, total = waiting, len(waiting)
    while pending:
        ready, pending = ray.wait(pending)
        for told, figures, aside in ray.get(ready):
            for name in _SUMS:
                sums[name] += told[name]
            for cell, counts in figures.items():
                before = cells.setdefault(cell, dict.fromkeys(_CELL_SUMS, 0))
                cells[cell] = {name: before[name] + counts[name] for name in _CELL_SUMS}
            heldout.merge(aside)
        context.progress(total - len(pending), total, "files", tokens=sums["tokens"])
    return sums, dict(sorted(cells.items())), heldout


def _pack_file(
    file: str, target: str, options: Mapping[str, Any], weight: float = 1.0
) -> tuple[dict[str, int], dict[Cell, dict[str, int]], HeldOut]:
    """Encode one file's documents, batch by batch; write those for training, return counts and what was held out."""
    os.environ["RAYON_NUM_THREADS"] = str(options["threads"])  # read when the encoder first runs in this process
    section, tokenizer = options["section"], worker_tokenizer(options["folder"])
    heldout = HeldOut(section["max_validation_sequences"] * section["max_seq_len"])
    cells: dict[Cell, dict[str, int]] = {}
    parts, like_heldout = [], 0
    for table in row_batches(file, _COLUMNS):
        is_like = _like_heldout(table, options)
        like_heldout += int(is_like.sum())
        parts.append(_encode(table, {**options, "weight": weight}, tokenizer, heldout, cells, is_like))
    tokens, lengths, order, times = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else _NONE
    shuffled = np.argsort(order, kind="stable")
    rounds = [shuffled[times[shuffled] > taken] for taken in range(int(times.max(initial=0)))]
    packed = pack(
        tokens,
        lengths,
        max_seq_len=section["max_seq_len"],
        separator=tokenizer.endoftext_id,
        token_bytes=tokenizer.token_bytes(),
        method=section["method"],
        order=np.concatenate([np.zeros(0, np.int64), *rounds]),
    )
    write_arrow(packed.table, target)
    told = {
        "sequences": packed.table.num_rows,
        "tokens": int(packed.table["num_tokens"].to_numpy().sum()),
        "bytes": int(packed.table["num_bytes"].to_numpy().sum(dtype=np.int64)),
        "documents": packed.documents,
        "cut_documents": packed.cut_documents,
        "like_heldout": like_heldout,
    }
    return told, cells, heldout


_NONE = (np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64))


def _like_heldout(table: pa.Table, options: Mapping[str, Any]) -> np.ndarray:
    """Find documents that an earlier run has held out, and near duplicates of them."""
    likeness: Likeness | None = options["likeness"]
    if likeness is None:
        return np.zeros(table.num_rows, bool)
    return likeness.is_like(table["id"].to_pylist(), table["text"].to_pylist())


def _encode(
    table: pa.Table,
    options: Mapping[str, Any],
    tokenizer: ChatTokenizer,
    heldout: HeldOut,
    cells: dict[Cell, dict[str, int]],
    is_like: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Encode a batch's documents that are taken; count all, set the held-out ones aside.

    Returns tokens [T], and for each document for training its tokens, its draw for the order, and its times [N].
    """
    names, members = cells_of(table["language"], table["source"])
    order = draws(table["id"], options["seed"], "order")
    # The held-out share is drawn by another hash than the order, or the first of the shuffle would be held out.
    is_heldout = is_below(draws(table["id"], options["seed"], "heldout"), options["section"]["validation_ratio"])
    sizes = pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy().astype(np.int64)
    if options["likeness"] is None:  # else the set is there already
        for number in np.unique(members[is_heldout]).tolist():
            mine = is_heldout & (members == number)
            heldout.bytes[names[number]] += int(sizes[mine].sum())
            mine[mine] = heldout.wanted(names[number], order[mine])
            texts = _texts(table, mine)
            aside, lengths = tokenizer.encode_documents(texts, tokenizer.endoftext_id)
            ids = table["id"].filter(pa.array(mine)).to_pylist()
            heldout.add(names[number], order[mine], aside, lengths, ids, texts)
    is_heldout |= is_like
    times = repeats(table["id"], options["weight"] * _weights(names, options)[members], options["seed"])
    times[is_heldout] = 0
    taken = times > 0
    tokens, lengths = tokenizer.encode_documents(_texts(table, taken), tokenizer.endoftext_id)
    taken_tokens = np.zeros(len(times), dtype=np.int64)
    taken_tokens[taken] = times[taken] * lengths
    figures = (~is_heldout, sizes * ~is_heldout, times, times * sizes, taken_tokens)
    _count(cells, names, members, figures)
    return tokens, lengths, order[taken], times[taken]


def _texts(table: pa.Table, chosen: np.ndarray) -> list[str | None]:
    return table["text"].filter(pa.array(chosen)).to_pylist()  # type: ignore[no-any-return]


def _weights(cells: Sequence[Cell], options: Mapping[str, Any]) -> np.ndarray:
    """Take the planned weight of each cell; without a plan the recipe's."""
    planned, by_language, by_source = (options[name] for name in ("weights", "languages", "sources"))
    weights = [planned[cell] if cell in planned else weight_of(cell, by_language, by_source) for cell in cells]
    return np.array(weights, dtype=np.float64)


def _count(
    cells: dict[Cell, dict[str, int]], names: Sequence[Cell], members: np.ndarray, figures: Sequence[np.ndarray]
) -> None:
    """Add figures of each document, in the order of `_CELL_SUMS`, to those of its cell."""
    sums = [np.bincount(members, weights=values, minlength=len(names)).astype(np.int64).tolist() for values in figures]
    for cell, *values in zip(names, *sums, strict=True):
        before = cells.setdefault(cell, dict.fromkeys(_CELL_SUMS, 0))
        cells[cell] = {name: before[name] + value for name, value in zip(_CELL_SUMS, values, strict=True)}
