"""What `instruct` and `preference` do alike: read files, render each record, count what is dropped, split, write.

    records ─▶ chunks ─▶ render ─▶ Arrow, ids by hash of content ─▶ drop repeats ─▶ order by id ─▶ hold out the first

Leaves `train.arrow`, `validation.arrow`, and `tokenizer/`: the tokenizer with the chat template of the rendering,
which goes with the model that learns from it.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.artifacts import Outcome, local_copy, upload
from qwen_core.data.conversations import BadRecordError, read_records
from qwen_core.errors import InputError
from qwen_core.jobs.context import Context
from qwen_core.jobs.corpus import write_arrow
from qwen_core.tokenizer import OWN, ChatTokenizer, chat_template, lay_template, load_tokenizer

Record = dict[str, Any]
Rows = list[Record | BadRecordError]
"""For each record a row, or the reason why there is none."""
Made = TypeVar("Made")
_CHUNK = 2000


def chat_tokenizer(context: Context) -> ChatTokenizer:
    """Give the run's tokenizer the chat template of the stage's section, and lay both beside the stage's output.

    Args:
        context: Of `instruct` or `preference`.

    Returns:
        The tokenizer.

    Raises:
        InputError: The tokenizer's own template is asked for, and it has none.
    """
    section, source = context.section, Path(local_copy(context.inputs["tokenizer"].path("tokenizer")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tokenizer"
        shutil.copytree(source, folder)
        tokenizer = load_tokenizer(folder)
        word = context.stage.name
        if section.template != OWN:
            lay_template(folder, *chat_template(section.template, tokenizer.control_tokens, section.system))
        elif not tokenizer.has_template:
            raise InputError(
                f"{word}.template is 'own', but no chat template lies with the tokenizer in {source}. Import a "
                f"tokenizer that brings one (chat_template.jinja), or take another template, such as chatml"
            )
        elif section.system:
            raise InputError(
                f"{word}.system cannot be put into the tokenizer's own template: drop it, or write it into the data"
            )
        upload(str(folder), context.output("tokenizer"))
        return load_tokenizer(folder)


def render_files(
    context: Context, paths: Mapping[str, Path], render: Callable[[list[Record]], Rows], schema: pa.Schema
) -> Outcome:
    """Render all records, many at a time, and write `train.arrow` and `validation.arrow`.

    Args:
        context: The stage's.
        paths: Files by name.
        render: Makes rows of records.
        schema: Of the rows; `id` is added by this function from the rendered content.

    Returns:
        The outcome; `rows` counts both splits.

    Raises:
        InputError: Fewer than two records could be used.
    """
    drops: Counter[str] = Counter()
    seen: set[str] = set()
    tables = [schema.empty_table()]
    for number, path in enumerate(paths.values()):
        for records in _chunks(read_records(path, drops)):
            tables.append(_table(render(records), seen, drops, schema))
        context.progress(number + 1, len(paths), "files", rows=len(seen))
    table = pa.concat_tables(tables).combine_chunks()
    if table.num_rows < 2:
        raise InputError(
            f"{table.num_rows} usable records in {', '.join(map(str, paths.values()))}, and two are the least; "
            f"dropped: {dict(drops) or 'nothing'}. The formats are those of docs/data.md"
        )
    # By rank of the hash, not by a threshold: a small set too gets its share held out.
    order = pc.sort_indices(table["id"])
    heldout = max(1, round(len(order) * context.section.validation_ratio))
    if heldout >= len(order):
        raise InputError(
            f"{context.stage.name}.validation_ratio ({context.section.validation_ratio}) holds out all "
            f"{len(order)} records: lower it"
        )
    for name, rows in (("validation", order[:heldout]), ("train", order[heldout:])):
        write_arrow(table.take(rows), context.output(f"{name}.arrow"))
    details = {"train_rows": len(order) - heldout, "validation_rows": heldout, **_details(table)}
    return Outcome(
        rows=table.num_rows,
        tokens=sum(int(pc.sum(size).as_py() or 0) for size in _sizes(table).values()),
        columns={field.name: str(field.type) for field in schema},
        drops=dict(drops),
        details=details,
    )


def tried(make: Callable[..., Made], *given: Any) -> Made | BadRecordError:
    """Make something of a record that may turn out to be of no use.

    Args:
        make: Raises `BadRecordError` where it is.
        given: Its arguments.

    Returns:
        What it made, or the reason why there is none.
    """
    try:
        return make(*given)
    except BadRecordError as reason:
        return reason


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(itertools.islice(records, _CHUNK)):
        yield chunk


def _table(rows: Rows, seen: set[str], drops: Counter[str], schema: pa.Schema) -> pa.Table:
    """Put rows into a table, without those that were seen before; count what is left out."""
    kept: list[Record] = []
    for row in rows:
        if isinstance(row, BadRecordError):
            drops[str(row)] += 1
            continue
        row["id"] = _id_of(row)
        if row["id"] in seen:
            drops["duplicate"] += 1
            continue
        seen.add(row["id"])
        kept.append(row)
    return pa.table([_column([row[field.name] for row in kept], field.type) for field in schema], schema=schema)


def _id_of(row: Record) -> str:
    """Hash a row's content."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(row):
        value = row[name]
        data = str(value).encode(errors="surrogatepass") if isinstance(value, str) else np.asarray(value).tobytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Make a column; of lists without turning each number into a Python object."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    dtype = kind.value_type.to_pandas_dtype()
    parts = [np.asarray(value, dtype=dtype) for value in values]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    flat = np.concatenate([np.zeros(0, dtype), *parts])
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat, kind.value_type), type=kind)


def _sizes(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Count the tokens of each row, by column of ids."""
    return {name: pc.list_value_length(table[name]) for name in table.column_names if name.endswith("_ids")}


def _details(table: pa.Table) -> dict[str, Any]:
    """Tell what a later stage checks and a reader wants to know: longest row, largest id, rows by language."""
    sizes = _sizes(table)
    prompt = sizes.pop("prompt_ids", None)
    longest = max(int(pc.max(size if prompt is None else pc.add(size, prompt)).as_py()) for size in sizes.values())
    largest = max(pc.max(pc.list_flatten(table[name])).as_py() or 0 for name in _sizes(table))
    counted = pc.value_counts(table["language"].combine_chunks()).to_pylist()
    return {
        "max_tokens": longest,
        "max_token_id": int(largest),
        "rows_by_language": {entry["values"]: entry["counts"] for entry in counted},
    }
