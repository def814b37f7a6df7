"""`filter`: documents ─▶ documents worth keeping, and a named reason for each that is dropped.

part ─▶ rules (edit lines) ─▶ keywords ─▶ evaluation sets ─▶ toxicity ─▶ quality ─▶ kept rows ─▶ PII masked ─▶ part

Each step sees only what the ones before it left: the cheap ones come first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.artifacts import Manifest, Outcome, local_copy
from qwen_core.data import tally
from qwen_core.data.decontaminate import add_reports
from qwen_core.data.documents import FILTERED_SCHEMA
from qwen_core.data.keywords import keywords_of, read_keywords
from qwen_core.errors import InputError
from qwen_core.jobs.contamination import evaluation_ngrams
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import corpus_outcome
from qwen_core.jobs.judging import Judged, block_keywords, decontaminate, drop_low_scores, judge_by_rules
from qwen_core.jobs.parts import Item, Made, make_parts, part_fingerprint
from qwen_core.jobs.sources import keyword_paths
from qwen_core.parts import Part, parts_of, row_batches
from qwen_core.tracking.corpus_figures import log_counts

_TOLD_DROPPED = ("id", "source", "language", "url", "quality_score", "toxicity_score")


def run(context: Context) -> Outcome:
    """Filter all parts.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with a count for each reason.

    Raises:
        InputError: Nothing was kept, or a list or an evaluation set cannot be read.
    """
    connect_ray()
    section, models = context.section, context.inputs["classifiers"]
    came = parts_of(context.inputs["ingest"])
    folders = {name: local_copy(models.path(name)) for name in models.config["classifiers"]["train"]}
    lists = read_keywords(list(keyword_paths(context.recipe).values()), section.keywords.languages)
    ngrams = evaluation_ngrams(context, came)
    options = {
        "limits": section.model_dump(),
        "keywords": keywords_of(lists, section.keywords.applies_to_all),
        "ngrams": ngrams,
        "models": {name: models.path(name) for name in folders},  # parts are worked on by other machines
        "thresholds": models.details.get("thresholds", {}),
    }
    decides = {
        "settings": context.attempt.config,
        "sources": context.attempt.sources,
        "classifiers": [_digest(folders), options["thresholds"]],
        "ngrams": ngrams.digest if ngrams else "",
    }
    items = [
        Item(part_fingerprint(context, part=part.fingerprint, **decides), part.text_bytes, {"uri": part.uri})
        for part in came
    ]
    parts = make_parts(context, items, _filter_part, options)
    outcome = _outcome(context, parts, context.inputs["ingest"])
    if ngrams:
        outcome.details["too_short_to_look_for"] = ["/".join(item) for item in ngrams.unchecked]
    return outcome


def _outcome(context: Context, parts: Sequence[Part], came: Manifest) -> Outcome:
    """Add up what the parts tell."""
    outcome = corpus_outcome(context, parts, came.rows)
    if not outcome.rows:
        raise InputError(f"every document was dropped: {outcome.drops}. Loosen the recipe's filter section")
    for name in ("masked", "lines", "keywords"):
        counts = sum((Counter(part.told.get(name, {})) for part in parts), Counter[str]())
        outcome.details[name] = dict(counts.most_common())
        if name != "keywords":  # there may be hundreds of terms
            outcome.metrics |= {f"{name}.{kind}": float(count) for kind, count in counts.items()}
    hit = add_reports(part.told.get("contamination", {}) for part in parts)
    outcome.details["contamination"] = hit
    items = {(name, item): count for name, told in hit.items() for item, count in told["items"].items()}
    log_counts(context.run, "contamination", ("evaluation", "item", "documents"), items)
    log_counts(context.run, "keywords", ("term", "documents"), outcome.details["keywords"])
    return outcome


def _digest(folders: dict[str, str]) -> str:
    """Hash the classifiers' files: their artifact's fingerprint follows the corpus, the models mostly do not."""
    digest = hashlib.blake2b(digest_size=16)
    for name, folder in folders.items():
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(f"{name}/{file.relative_to(folder)}".encode() + file.read_bytes())
    return digest.hexdigest()


def _filter_part(given: dict[str, Any], options: dict[str, Any]) -> Made:
    """Judge the documents of one part, a batch at a time."""
    made = Made([])

    def tables() -> Iterator[pa.Table]:
        told = []
        for table in row_batches(given["uri"]):
            judged, counts = _judge(table, options)
            told.append(counts)
            gone = judged.select(_TOLD_DROPPED).append_column("reason", judged["reason"])
            made.dropped.append(gone.filter(pc.is_valid(gone["reason"])))
            yield judged.filter(pc.is_null(judged["reason"])).select(FILTERED_SCHEMA.names).cast(FILTERED_SCHEMA)
        made.told.update(tally.merge(told))
        for name in ("masked", "lines", "keywords"):
            made.told[name] = dict(sum((one[name] for one in told), Counter[str]()))
        made.told["contamination"] = add_reports(one["contamination"] for one in told)

    return replace(made, tables=tables())


def _judge(table: pa.Table, options: dict[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
    """Judge a batch: the documents with scores and `reason`, kept texts masked, and the counts."""
    judged, limits = Judged(table), options["limits"]
    lines = judge_by_rules(judged, limits)
    terms = block_keywords(judged, options["keywords"], limits["keywords"])
    found = decontaminate(judged, options["ngrams"], limits["decontaminate"])
    classifiers = {name: local_copy(uri) for name, uri in options["models"].items()}
    drop_low_scores(judged, classifiers, options["thresholds"], limits)
    masked = judged.mask(limits["mask_pii"])
    result = judged.result()
    counts = {"masked": masked, "lines": lines, "keywords": terms, "contamination": found}
    result = result.append_column("reason", pa.array(judged.reasons.tolist(), pa.string()))
    return result, tally.tally(result, judged.reasons) | counts
