"""`pack`: documents ─▶ fixed-length token sequences, and a held-out set by language and source.

    documents/part-i.parquet ─▶ hold out by hash of id ─▶ mix ─▶ encode ─▶ shuffle by hash ─▶ pack ─▶ train/part-i.arrow
                                     └─▶ group by (language, source) ─▶ pack each ─▶ validation/part-00000.arrow

Each input file is one Ray task and gives one output file, so the result does not depend on the number of workers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.data.mix import draws, repeats
from qwen_core.data.pack import pack, spread
from qwen_core.data.packed import packed_schema
from qwen_core.errors import InputError
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import document_files, write_arrow
from qwen_core.tokenizer import load_tokenizer

_COLUMNS = ["id", "text", "language", "source"]
Heldout = dict[tuple[str, str], list[tuple[int, list[int]]]]


def run(context: Context) -> Outcome:
    """Encode, pack and write both splits.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts training sequences, `tokens` the tokens in them.

    Raises:
        InputError: The corpus is empty, or too small to hold anything out.
    """
    connect_ray()
    files = document_files(context.inputs["dedup"])
    folder = local_copy(context.inputs["tokenizer"].path("tokenizer"))
    section, mix, seed = context.section, context.recipe.mix.model_dump(), context.recipe.seed
    work = ray.remote(num_cpus=1)(_pack_file)
    waiting = [
        work.remote(file, folder, section.model_dump(), mix, seed, context.output(f"train/part-{index:05d}.arrow"))
        for index, file in enumerate(files)
    ]
    counts, heldout = _gather(context, waiting)
    sequences = _pack_heldout(heldout, folder, section, context.output("validation/part-00000.arrow"))
    if not counts["sequences"] or not sequences:
        raise InputError(
            f"the corpus has {context.inputs['dedup'].rows} documents: too few for a training and a held-out split. "
            f"Give more input, loosen the filter section, or raise pack.validation_ratio ({section.validation_ratio})"
        )
    tokenizer = load_tokenizer(folder)
    details = {
        "max_seq_len": section.max_seq_len,
        "vocab_size": tokenizer.vocab_size,
        "train_sequences": counts["sequences"],
        "validation_sequences": sequences,
        "tokens_by_language": counts["by_language"],
    }
    return Outcome(
        rows=counts["sequences"],
        tokens=counts["tokens"],
        columns={field.name: str(field.type) for field in packed_schema(section.max_seq_len)},
        metrics={"bytes_per_token": counts["bytes"] / max(1, counts["tokens"]), "validation_sequences": sequences},
        details=details,
    )


def _gather(context: Context, waiting: list[Any]) -> tuple[dict[str, Any], Heldout]:
    """Wait for all files, reporting progress; add up what they tell, in the files' order."""
    results: dict[Any, Any] = {}
    pending = list(waiting)
    while pending:
        ready, pending = ray.wait(pending)
        results |= {reference: ray.get(reference) for reference in ready}
        context.progress(len(results), len(waiting), "files")
    counts: dict[str, Any] = {"sequences": 0, "tokens": 0, "bytes": 0, "by_language": {}}
    heldout: Heldout = {}
    for reference in waiting:
        told, documents = results[reference]
        for name in ("sequences", "tokens", "bytes"):
            counts[name] += told[name]
        for language, tokens in told["by_language"].items():
            counts["by_language"][language] = counts["by_language"].get(language, 0) + tokens
        for group, members in documents.items():
            heldout.setdefault(group, []).extend(members)
    return counts, heldout


def _pack_file(
    file: str, tokenizer_folder: str, section: dict[str, Any], mix: dict[str, Any], seed: int, target: str
) -> tuple[dict[str, Any], Heldout]:
    """Encode one file's documents; write those for training as often as the mix says, return the held-out ones."""
    tokenizer = load_tokenizer(tokenizer_folder)
    table = pq.read_table(local_copy(file), columns=_COLUMNS)
    order = draws(table["id"].to_pylist(), seed, "order")
    table = table.append_column("draw", pa.array(order)).take(pa.array(np.argsort(order, kind="stable")))
    ids, languages, sources = (table[name].to_pylist() for name in ("id", "language", "source"))
    # The held-out share is drawn by another hash than the order, or the first of the shuffle would be held out.
    is_heldout = draws(ids, seed, "heldout") < section["validation_ratio"] * 2.0**64
    times = np.where(is_heldout, 0, repeats(ids, languages, sources, mix, seed))
    is_used = is_heldout | (times > 0)
    table, times = table.filter(pa.array(is_used)), times[is_used]
    encoded = tokenizer.encode_batch(table["text"].to_pylist())
    rounds = range(int(times.max(initial=0)))
    packed = pack(
        [encoded[index] for taken in rounds for index in np.flatnonzero(times > taken)],
        max_seq_len=section["max_seq_len"],
        separator=tokenizer.endoftext_id,
        token_bytes=tokenizer.token_bytes(),
    )
    write_arrow(packed, target)
    by_language: dict[str, int] = {}
    heldout: Heldout = {}
    rows = (table[name].to_pylist() for name in ("language", "source", "draw"))
    for tokens, count, language, source, draw in zip(encoded, times.tolist(), *rows, strict=True):
        if count:
            name = language or "unknown"
            by_language[name] = by_language.get(name, 0) + count * (len(tokens) + 1)
        else:
            heldout.setdefault((language or "unknown", source or "unknown"), []).append((draw, tokens))
    told = {
        "sequences": packed.num_rows,
        "tokens": int(packed["num_tokens"].to_numpy().sum()),
        "bytes": int(packed["num_bytes"].to_numpy().sum()),
        "by_language": by_language,
    }
    return told, heldout


def _pack_heldout(heldout: Heldout, tokenizer_folder: str, section: Any, target: str) -> int:
    """Pack each group's held-out documents by itself, as many sequences as its share; return their number."""
    tokenizer = load_tokenizer(tokenizer_folder)
    tables = {}
    for (language, source), members in sorted(heldout.items()):
        documents = [ids for _, ids in sorted(members)]
        tables[language, source] = pack(
            documents,
            max_seq_len=section.max_seq_len,
            separator=tokenizer.endoftext_id,
            token_bytes=tokenizer.token_bytes(),
            language=language,
            source=source,
        )
    granted = spread({group: table.num_rows for group, table in tables.items()}, section.max_validation_sequences)
    kept = [table.slice(0, granted[group]) for group, table in tables.items()]
    packed = pa.concat_tables(kept) if kept else packed_schema(section.max_seq_len).empty_table()
    write_arrow(packed.combine_chunks(), target)
    return int(packed.num_rows)
