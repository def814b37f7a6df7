"""What `instruct` and `preference` do alike: read files, render each record, count what is dropped, split, write."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from qwen_core.artifacts import Outcome
from qwen_core.data.conversations import BadRecordError, read_records
from qwen_core.errors import InputError
from qwen_core.jobs.context import Context
from qwen_core.jobs.corpus import write_arrow

Render = Callable[[dict[str, Any]], dict[str, Any]]


def render_files(context: Context, paths: dict[str, Path], render: Render, schema: pa.Schema) -> Outcome:
    """Render all records and write `train.arrow` and `validation.arrow`.

    Args:
        context: The stage's.
        paths: Files by name.
        render: Makes a row of a record, or raises `BadRecordError` with the reason.
        schema: Of the rows; `id` is added by this function from the rendered content.

    Returns:
        The outcome; `rows` counts both splits.

    Raises:
        InputError: No record could be used.
    """
    drops: Counter[str] = Counter()
    rows: dict[str, dict[str, Any]] = {}
    for number, path in enumerate(paths.values()):
        for record in read_records(path, drops):
            try:
                row = render(record)
            except BadRecordError as reason:
                drops[str(reason)] += 1
                continue
            key = hashlib.blake2b(repr(sorted(row.items())).encode(), digest_size=8).hexdigest()
            if key in rows:
                drops["duplicate"] += 1
            rows[key] = {"id": key, **row}
        context.progress(number + 1, len(paths), "files")
    if len(rows) < 2:
        raise InputError(
            f"no usable record in {', '.join(map(str, paths.values()))}; dropped: {dict(drops) or 'nothing'}"
        )
    # By rank of the hash, not by a threshold: a small set too gets its share held out.
    order = sorted(rows)
    heldout = max(1, round(len(order) * context.section.validation_ratio))
    splits = {"validation": order[:heldout], "train": order[heldout:]}
    for name, keys in splits.items():
        write_arrow(pa.Table.from_pylist([rows[key] for key in keys], schema=schema), context.output(f"{name}.arrow"))
    details = {f"{name}_rows": len(keys) for name, keys in splits.items()}
    by_language = Counter(row["language"] for row in rows.values())
    return Outcome(
        rows=len(rows),
        tokens=sum(len(ids) for row in rows.values() for name, ids in row.items() if name.endswith("_ids")),
        columns={field.name: str(field.type) for field in schema},
        drops=dict(drops),
        details={**details, "rows_by_language": dict(by_language)},
    )
