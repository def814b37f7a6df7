"""Raw records to documents: cleaned, cut, named and labelled by language, a batch at a time.

raw records ─▶ normalise ─▶ chunk ─▶ drop what is too short ─▶ label ─▶ documents
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.chunk import chunk
from qwen_core.data.clean import normalise
from qwen_core.data.documents import SCHEMA, document_id
from qwen_core.data.language import label
from qwen_core.data.read.report import Report

_BATCH_ROWS, _BATCH_BYTES = 2000, 8_000_000


@dataclass(frozen=True)
class Cleaning:
    """How text is cleaned and cut.

    Attributes:
        max_chars: Longer documents are cut.
        min_chars: Shorter documents are dropped.
        fix_mojibake: See `normalise`; like the next three, not for code.
        width: See `normalise`.
        punctuation: See `normalise`.
        drop_noise_lines: See `normalise`.
    """

    max_chars: int = 20_000
    min_chars: int = 20
    fix_mojibake: bool = True
    width: str = "keep"
    punctuation: str = "keep"
    drop_noise_lines: bool = False


def batched(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Bring small tables together, such as those of single files, so that each step has a batch to work on.

    Args:
        tables: Raw records.

    Yields:
        Tables of up to some thousand rows or megabytes.
    """
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if not table.num_rows:
            continue
        waiting.append(table)
        rows += table.num_rows
        size += table.nbytes
        if rows >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def to_documents(
    raw: pa.Table, cleaning: Cleaning, report: Report, labelling: Mapping[str, Any] | None = None
) -> pa.Table:
    """Make documents of raw records.

    Args:
        raw: As `read_batches` gives them, `source` filled in.
        cleaning: How.
        report: Gets the drops `empty` and `too_short`, and repairs.
        labelling: Options of `label`.

    Returns:
        Documents; `id` hashes path, position in the file and number of the chunk.
    """
    raw = raw.combine_chunks()
    text = _cleaned(raw["text"].combine_chunks(), raw["is_code"].combine_chunks(), cleaning, report)
    raw, text, numbers = _chunked(raw.drop_columns("text"), text, cleaning.max_chars)
    length = pc.utf8_length(text)
    is_empty = pc.equal(length, 0)
    for reason, lost in (
        ("empty", is_empty),
        ("too_short", pc.and_not(pc.less(length, cleaning.min_chars), is_empty)),
    ):
        _count(reason, lost, raw, report)
    keep = pc.greater_equal(length, max(1, cleaning.min_chars))
    raw, text, numbers = raw.filter(keep), text.filter(keep), numbers[np.asarray(keep)]
    return _labelled(raw, text, _ids(raw, numbers), labelling or {})


def _cleaned(text: pa.Array, is_code: pa.Array, cleaning: Cleaning, report: Report) -> pa.Array:
    """Clean prose as asked for, code only of what no file should hold."""
    if not pc.any(is_code).as_py():
        return normalise(
            text,
            width=cleaning.width,
            punctuation=cleaning.punctuation,
            fix_mojibake=cleaning.fix_mojibake,
            drop_noise_lines=cleaning.drop_noise_lines,
            repairs=report.repairs,
        )
    code = normalise(text.filter(is_code), repairs=report.repairs)
    if len(code) == len(text):
        return code
    is_prose = pc.invert(is_code)
    prose = text.filter(is_prose)
    prose = _cleaned(prose, pa.array(np.zeros(len(prose), bool)), cleaning, report)
    return pc.replace_with_mask(pc.replace_with_mask(text, is_code, code), is_prose, prose)


def _chunked(raw: pa.Table, text: pa.Array, max_chars: int) -> tuple[pa.Table, pa.Array, np.ndarray]:
    """Cut what is too long; every other row is only moved."""
    is_long = np.asarray(pc.greater(pc.utf8_length(text), max_chars))
    if not is_long.any():
        return raw, text, np.zeros(len(text), np.int64)
    pieces = [chunk(value, max_chars) for value in text.filter(pa.array(is_long)).to_pylist()]
    counts = np.ones(len(text), np.int64)
    counts[is_long] = [len(found) for found in pieces]
    rows = np.repeat(np.arange(len(text)), counts)
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    short = text.filter(pa.array(~is_long))
    cut = pa.array([piece for found in pieces for piece in found], pa.string())
    place = np.empty(len(rows), np.int64)
    from_long = is_long[rows]
    place[~from_long] = np.arange(len(short))
    place[from_long] = len(short) + np.arange(len(cut))
    return raw.take(pa.array(rows)), pa.concat_arrays([short, cut]).take(pa.array(place)), numbers


def _count(reason: str, lost: pa.Array, raw: pa.Table, report: Report) -> None:
    count = int(pc.sum(lost).as_py() or 0)
    if count:
        first = int(pc.index(lost, True).as_py())
        report.drop(reason, raw["position"][first].as_py(), count, raw["path"][first].as_py())


def _ids(raw: pa.Table, numbers: np.ndarray) -> pa.Array:
    places = zip(raw["path"].to_pylist(), raw["position"].to_pylist(), numbers.tolist(), strict=True)
    return pa.array([document_id(path, f"{position}/{number}") for path, position, number in places], pa.string())


def _labelled(raw: pa.Table, text: pa.Array, ids: pa.Array, labelling: Mapping[str, Any]) -> pa.Table:
    language, score, script = label(text, **labelling)
    is_code = raw["is_code"].combine_chunks() if raw.num_rows else pa.array([], pa.bool_())
    columns = {
        "id": ids,
        "text": text,
        "source": raw["source"],
        "url": raw["url"],
        "language": pc.if_else(is_code, "code", language),
        "language_score": pc.if_else(is_code, pa.scalar(1.0, pa.float32()), score),
        "script": script,
        "timestamp": raw["timestamp"],
        "metadata": raw["metadata"],
    }
    return pa.table(columns).select(SCHEMA.names).cast(SCHEMA)
