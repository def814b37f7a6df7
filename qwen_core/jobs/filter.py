"""`filter`: documents ─▶ documents worth keeping, and a named reason for each that is dropped.

part ─▶ split words once ─▶ rules ─▶ keywords ─▶ toxicity score ─▶ quality score ─▶ kept rows ─▶ PII masked ─▶ part
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.data.classify import scores
from qwen_core.data.documents import SCHEMA
from qwen_core.data.keywords import has_keyword, pattern_of, read_keywords
from qwen_core.data.pii import mask_pii
from qwen_core.data.rules import reasons
from qwen_core.data.words import split_words
from qwen_core.errors import InputError
from qwen_core.jobs.classifiers import POSITIVE
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import add_up, document_files, map_parts, write_documents
from qwen_core.jobs.sources import keyword_paths
from qwen_core.tracking.figures import funnel

FILTERED_SCHEMA = SCHEMA.append(pa.field("quality_score", pa.float32())).append(
    pa.field("toxicity_score", pa.float32())
)


def run(context: Context) -> Outcome:
    """Filter all parts.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with a count for each reason.

    Raises:
        InputError: Nothing was kept.
    """
    connect_ray()
    models = context.inputs["classifiers"]
    keywords = read_keywords(list(keyword_paths(context.recipe).values()))
    options = {
        "thresholds": context.section.model_dump(),
        "keywords": pattern_of(keywords),
        "models": {name: local_copy(models.path(f"{name}.bin")) for name in POSITIVE},
    }
    files = document_files(context.inputs["ingest"])
    parts = [
        {"index": index, "file": file, "target": context.output(f"documents/part-{index:05d}.parquet")}
        for index, file in enumerate(files)
    ]
    told = map_parts(context, parts, _filter_part, options)
    total = add_up(told)
    if not total["rows"]:
        raise InputError(f"every document was dropped: {total['drops']}. Loosen the recipe's filter section")
    masked = sum((Counter(part["masked"]) for part in told), Counter[str]())
    came = context.inputs["ingest"].rows
    context.run.log_figure(funnel({"ingested": came, "kept": total["rows"]}, total["drops"]), "funnel.png")
    return Outcome(
        rows=total["rows"],
        columns={field.name: str(field.type) for field in FILTERED_SCHEMA},
        drops=total["drops"],
        metrics={"kept_ratio": total["rows"] / max(1, came)} | {f"masked.{kind}": n for kind, n in masked.items()},
        details={name: total[name] for name in ("by_language", "by_source", "text_bytes")},
    )


def _filter_part(part: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Judge one file's documents and write those that are kept."""
    table = pq.read_table(local_copy(part["file"]))
    drops: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    if table.num_rows:
        texts = table["text"].to_pylist()
        answer = reasons(table, split_words(texts), options["thresholds"])
        scored = {name: scores(path, texts, POSITIVE[name]) for name, path in options["models"].items()}
        limits = options["thresholds"]
        is_code = np.asarray(table["language"].to_pylist(), dtype=object) == "code"
        later = [
            ("blocked_keyword", ~is_code & has_keyword(table["text"], options["keywords"])),
            ("toxic", ~is_code & (scored["toxicity"] > limits["max_toxicity_score"])),
            ("low_quality", ~is_code & (scored["quality"] < limits["min_quality_score"])),
        ]
        for reason, mask in later:
            answer[mask & (answer == None)] = reason  # noqa: E711 - element by element
        drops.update(reason for reason in answer if reason is not None)
        for name in ("quality", "toxicity"):
            table = table.append_column(f"{name}_score", pa.array(scored[name], pa.float32()))
        is_kept = answer == None  # noqa: E711
        table = table.filter(pa.array(is_kept))
        text, masked = mask_pii(table["text"], is_code[is_kept], limits["mask_pii"])
        table = table.set_column(table.schema.get_field_index("text"), "text", text)
    else:
        table = FILTERED_SCHEMA.empty_table()
    return {**write_documents(table, part["target"]), "drops": dict(drops), "masked": dict(masked)}
