"""Two pipeline runs side by side: what differed in data, in recipe, in result. From manifests alone, without MLflow.

manifests of A, of B ─▶ compare ─▶ Comparison ─▶ terminal, JSON, Markdown, a figure: the same answer everywhere
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qwen_core.artifacts import Manifest, Store
from qwen_core.config import Recipe
from qwen_core.parts import LIST, Part
from qwen_core.tracking.comparison import Change, Comparison, Curve, Row, Side
from qwen_core.tracking.flat import flatten

CORPUS_STAGES = ("ingest", "filter", "dedup")
"""Stages that documents pass through, in order."""
TRAINING_STAGES = ("pretrain", "sft", "dpo", "reward", "ppo")
"""Stages with curves, in order."""
_LOWER_IS_BETTER = ("loss", "bits_per_byte", "perplexity")
_HIGHER_IS_BETTER = ("accuracy", "accuracies", "margin", "f1", "roc_auc", "exact_match", "acc", "acc_norm")
_MOST_FILES = 20
_LONGEST_VALUE = 120


def compare(a: Side, b: Side, store: Store) -> Comparison:
    """Lay two runs side by side.

    Args:
        a: The first, usually the earlier one.
        b: The second.
        store: Where the artifacts lie: histories and lists of files are read there.

    Returns:
        The comparison.
    """
    shared = [name for name, one in a.manifests.items() if one.uri == _uri(b, name)]
    curves = list(_curves(a, b, store))
    return Comparison(
        a=a.title,
        b=b.title,
        shared=shared,
        data=[*_funnel(a, b), *_kept(a, b), *_mix(a, b)],
        files=_files(a, b, store),
        recipe=_recipe(a, b),
        result=[*_ends(curves), *_closing(a, b, curves), *_held_out(a, b)],
        notes=_notes(a, b),
        curves=curves,
    )


def _uri(side: Side, stage: str) -> str:
    manifest = side.manifests.get(stage)
    return manifest.uri if manifest else ""


def _funnel(a: Side, b: Side) -> Iterator[Row]:
    """What came into each corpus stage, what each reason took, what stayed."""
    for stage in CORPUS_STAGES:
        both = [_reasons(side.manifests.get(stage)) for side in (a, b)]
        if not any(both):
            continue
        for reason in _in_order(both):
            yield _row("funnel", stage, reason, *(one.get(reason, 0) if one else None for one in both))


def _reasons(manifest: Manifest | None) -> dict[str, int]:
    if manifest is None:
        return {}
    drops = {name: count for name, count in manifest.drops.items() if count}
    return {"came": manifest.rows + sum(drops.values()), "kept": manifest.rows, **drops}


def _kept(a: Side, b: Side) -> Iterator[Row]:
    """Bytes of text that stayed, by source and by language, after the last corpus stage that both have."""
    stage = next((name for name in reversed(CORPUS_STAGES) if name in a.manifests and name in b.manifests), None)
    if stage is None:
        return
    for place, part in enumerate(("sources", "languages")):
        both: list[Counter[str]] = [Counter(), Counter()]
        for side, counts in zip((a, b), both, strict=True):
            for row in side.manifests[stage].details.get("funnel", ()):
                if not row[2]:
                    counts[row[place] or "unknown"] += row[4]
        for name in _in_order(both):
            yield _row(part, stage, name, *(one.get(name, 0) for one in both))


def _mix(a: Side, b: Side) -> Iterator[Row]:
    """Tokens that training gets, by language and source."""
    both: list[Counter[str]] = [Counter(), Counter()]
    for side, counts in zip((a, b), both, strict=True):
        for cell in side.manifests["pack"].details.get("mix", ()) if "pack" in side.manifests else ():
            counts[f"{cell['language']} of {cell['source']}"] += cell["tokens"]
    for name in _in_order(both):
        yield _row("mix", "pack", name, *(one.get(name, 0) for one in both))
    for name in ("bytes_per_token", "padding_ratio"):
        yield from _measure("mix", "pack", name, *(_metrics(side, "pack").get(name) for side in (a, b)))


def _files(a: Side, b: Side, store: Store) -> dict[str, Any]:
    """Which source files only one of the runs has."""
    both = [source_files(side.manifests.get("ingest"), store) for side in (a, b)]
    only = [sorted(path for digest, path in one.items() if digest not in other) for one, other in (both, both[::-1])]
    told: dict[str, Any] = {"a": len(both[0]), "b": len(both[1])}
    for name, paths in zip(("a", "b"), only, strict=True):
        told |= {f"only_{name}_count": len(paths), f"only_{name}": paths[:_MOST_FILES]}
    return told


def source_files(ingest: Manifest | None, store: Store) -> dict[str, str]:
    """List the files that a corpus was made of.

    Args:
        ingest: Manifest of its `ingest`.
        store: Where it lies.

    Returns:
        Path by content hash; by path itself where there is no hash.
    """
    text = store.read(ingest.path(LIST)) if ingest else None
    parts = [Part.model_validate_json(line) for line in (text or b"").decode().splitlines()]
    return {digest or path: path for part in parts for path, digest in part.told.get("files", ())}


def _recipe(a: Side, b: Side) -> list[Change]:
    """Keys that differ, of the sections that shaped each artifact."""
    shared = [name for name in a.manifests if name in b.manifests]
    both = [dict(_settings(side, shared)) for side in (a, b)]
    keys = sorted(set(both[0]) | set(both[1]))
    defaults = dict(_texts(Recipe().model_dump(mode="json")))  # of keys that are newer than one of the runs
    found = [Change(key, *(one.get(key, defaults.get(key)) for one in both)) for key in keys]
    return [change for change in found if change.a != change.b]


def _settings(side: Side, stages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for stage in stages:
        manifest = side.manifests[stage]
        yield f"version.{stage}", str(manifest.stage_version)
        yield "version.qwen_core", manifest.code_version
        yield from _texts(manifest.config)
        for name, digest in manifest.sources.items():
            if stage != "ingest":  # whose files are told one by one
                yield f"{stage}.content.{name}", digest[:8]


def _texts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted keys, and values as texts; a long one is cut."""
    for name, value in flatten(config):
        if value != {}:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield name, text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _curves(a: Side, b: Side, store: Store) -> Iterator[Curve]:
    """Curves of the training stages, from their histories."""
    for stage in TRAINING_STAGES:
        both = [_history(side.manifests.get(stage), store) for side in (a, b)]
        for name in dict.fromkeys([*both[0], *both[1]]):
            yield Curve(stage, name, *(one.get(name, []) for one in both))


def _history(manifest: Manifest | None, store: Store) -> dict[str, list[tuple[float, float]]]:
    text = store.read(manifest.path("history.jsonl")) if manifest else None
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in (text or b"").decode().splitlines():
        event = json.loads(line)
        for name, value in event.items():
            if name == "train/loss" or name.startswith("validation/"):
                curves.setdefault(name, []).append((event["step"], value))
    return curves


def _ends(curves: Iterable[Curve]) -> Iterator[Row]:
    for curve in curves:
        ends = [one[-1][1] if one else None for one in (curve.a, curve.b)]
        yield from _measure("training", curve.stage, curve.name, *ends)


def _closing(a: Side, b: Side, curves: Sequence[Curve]) -> Iterator[Row]:
    """Figures of training that are no curve; the ends of curves too, where a history is gone."""
    for stage in TRAINING_STAGES:
        known = any(curve.stage == stage for curve in curves)
        both = [_metrics(side, stage) for side in (a, b)]
        for name in dict.fromkeys([*both[0], *both[1]]):
            if name in ("steps", "tokens_per_second", "parameters") or (name.startswith("last_") and not known):
                yield from _measure("training", stage, name, *(one.get(name) for one in both))


def _held_out(a: Side, b: Side) -> Iterator[Row]:
    both = [_metrics(side, "evaluate") for side in (a, b)]
    for name in dict.fromkeys([*both[0], *both[1]]):
        yield from _measure("held-out", "evaluate", name, *(one.get(name) for one in both))


def _metrics(side: Side, stage: str) -> dict[str, float]:
    return side.manifests[stage].metrics if stage in side.manifests else {}


def _measure(part: str, stage: str, name: str, a: float | None, b: float | None) -> Iterator[Row]:
    if a is not None or b is not None:
        yield _row(part, stage, name, a, b)


def _row(part: str, stage: str, name: str, a: float | None, b: float | None) -> Row:
    row = Row(part, stage, name, a, b)
    if a is None or b is None or row.is_same or part not in ("training", "held-out"):
        return row
    sense = _sense(name)
    return Row(part, stage, name, a, b, ("a" if (a - b) * sense > 0 else "b") if sense else "")


def _sense(name: str) -> int:
    """Tell whether more of a measure is better (1), or less (-1), or neither (0)."""
    words = name.replace(".", "/").split("/")
    if any(word.endswith(_HIGHER_IS_BETTER) for word in words):
        return 1
    return -1 if any(word.endswith(_LOWER_IS_BETTER) for word in words) else 0


def _in_order(both: Sequence[Mapping[str, int]]) -> list[str]:
    """Join the names of both, the largest first; `came` and `kept` lead."""
    names = set(both[0]) | set(both[1])
    lead = ("came", "kept")
    return sorted(names, key=lambda name: (name not in lead, -max(one.get(name, 0) for one in both), name))


def _notes(a: Side, b: Side) -> list[str]:
    notes = []
    missing = {
        side.run_key: [n for n in other.manifests if n not in side.manifests] for side, other in ((a, b), (b, a))
    }
    notes += [f"run '{key}' has no {', '.join(names)}" for key, names in missing.items() if names]
    if "pack" in a.manifests and "pack" in b.manifests and _uri(a, "pack") != _uri(b, "pack"):
        digests = {side.manifests["pack"].details.get("heldout_digest") for side in (a, b)}
        if len(digests) > 1 or None in digests:
            notes.append("the held-out documents differ: results compare only as far as both sets are alike")
        if _uri(a, "tokenizer") != _uri(b, "tokenizer"):
            notes.append("the tokenizers differ: bits per byte can be compared, losses per token cannot")
    return notes
