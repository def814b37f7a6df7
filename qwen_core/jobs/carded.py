"""What the model card and the release notes tell, gathered from the manifests of a run and of the champion's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.compute as pc

from qwen_core.artifacts import Manifest
from qwen_core.data import tally
from qwen_core.jobs.context import Context
from qwen_core.jobs.lineage import lineage_of_version
from qwen_core.parts import parts_of, read_rows
from qwen_core.stages import STAGES
from qwen_core.tracking.card import Facts, model_card, release_notes
from qwen_core.tracking.flat import flatten
from qwen_core.tracking.registry import Registered

CARD, NOTES = "model_card.md", "release_notes.md"
_ARCHITECTURE = (
    *("model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "num_experts", "num_experts_per_tok", "vocab_size", "max_position_embeddings"),
)
_CORPUS, _TRAINED = ("ingest", "filter", "dedup"), ("pretrain", "sft", "dpo")
_POINTERS = ("ingest.base", "tokenizer.keep_from", "pack.heldout_from", "pack.new_from", "pretrain.init_from")
_LICENCE = r'"licence": ?"(?P<name>[^"]+)"'
_LICENCE_PARTS, _MOST_LICENCES, _MOST_CHANGES = 8, 20, 40


def card_texts(
    context: Context,
    made: Mapping[str, Manifest],
    champion: Registered | None,
    rows: list[dict[str, Any]],
    verdict: str,
) -> dict[str, str]:
    """Write the card and the notes of a run's model.

    Args:
        context: Of `release`.
        made: Manifests of all stages that the model was made by.
        champion: That it was compared with.
        rows: Of the gate.
        verdict: Its decision, in words.

    Returns:
        Markdown by file name: `CARD` and `NOTES`.
    """
    facts = facts_of(context, made, champion)
    language = context.section.language
    return {CARD: model_card(facts, rows, language), NOTES: release_notes(facts, rows, verdict, language)}


def facts_of(context: Context, made: Mapping[str, Manifest], champion: Registered | None) -> Facts:
    """Gather the facts.

    Args:
        context: Of `release`.
        made: Manifests of all stages that the model was made by.
        champion: That it was compared with.

    Returns:
        The facts.
    """
    store, recipe, section = context.store, context.recipe, context.section
    model, pack, corpus, ingest = (made[name] for name in ("dpo", "pack", "dedup", "ingest"))
    config = json.loads(store.read(model.path("model/config.json")) or b"{}")
    before = lineage_of_version(store, champion)
    return Facts(
        name=section.model_name,
        run_key=context.attempt.run_key,
        made_on=model.created_at[:10],
        description=recipe.description,
        recipe=recipe.name,
        architecture={name: config[name] for name in _ARCHITECTURE if config.get(name) is not None},
        parameters=int(model.metrics.get("parameters", 0)),
        languages=_shares(pack.details.get("tokens_by_language", {})),
        sources=_sources(corpus),
        licences=_licences(corpus),
        documents=corpus.rows,
        tokens=pack.tokens,
        dates=(ingest.details.get("first_read_at", ingest.created_at)[:10], ingest.created_at[:10]),
        funnel=[{"stage": name, "kept": made[name].rows, "drops": _drops(made[name])} for name in _CORPUS],
        training=[_training(made[name]) for name in _TRAINED if name in made],
        metrics=made["evaluate"].metrics,
        tokenizer=_tokenizer(made["tokenizer"]),
        licence=section.licence,
        intended_use=section.intended_use,
        lineage=[
            {"stage": name, "fingerprint": made[name].fingerprint, "manifest": made[name].uri}
            for name in STAGES
            if name in made
        ],
        changes={"data": list(data_changes(before, made)), "recipe": list(recipe_changes(before, made))},
        champion=champion.version if champion else None,
    )


def data_changes(before: Mapping[str, Manifest], now: Mapping[str, Manifest]) -> Iterator[str]:
    """Tell what two runs' data differ in.

    Args:
        before: Manifests of the champion, by stage word.
        now: Of the challenger.

    Yields:
        Lines.
    """
    for stage, what in (("ingest", "documents read"), ("dedup", "documents kept"), ("pack", "sequences")):
        if stage in before and before[stage].rows != now[stage].rows:
            rise = now[stage].rows - before[stage].rows
            yield f"{what}: {before[stage].rows:,} → {now[stage].rows:,} ({rise:+,})"
    if "dedup" in before:
        names = [{row["source"] for row in _sources(made["dedup"])} for made in (before, now)]
        for told, found in (("new", names[1] - names[0]), ("gone", names[0] - names[1])):
            if found:
                yield f"sources that are {told}: {', '.join(sorted(found)[:_MOST_CHANGES])}"
    if "pack" in before and before["pack"].tokens != now["pack"].tokens:
        yield f"tokens: {before['pack'].tokens:,} → {now['pack'].tokens:,}"
    if "tokenizer" in before and "decision" in now["tokenizer"].details:
        yield f"tokenizer: {_tokenizer(now['tokenizer'])}"


def recipe_changes(before: Mapping[str, Manifest], now: Mapping[str, Manifest]) -> Iterator[str]:
    """Tell what two runs' recipes differ in; what only points to earlier artifacts is left out.

    Args:
        before: Manifests of the champion, by stage word.
        now: Of the challenger.

    Yields:
        Lines.
    """
    told: set[str] = set()
    for stage in STAGES:
        if stage not in before or stage not in now:
            continue
        first, second = (dict(flatten(made[stage].config)) for made in (before, now))
        for name in sorted({*first, *second} - set(_POINTERS) - told):
            if first.get(name) != second.get(name):
                told.add(name)  # sections that several stages share
                yield f"`{name}`: {_short(first.get(name))} → {_short(second.get(name))}"


def _short(value: Any) -> str:
    text = "its default" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _shares(tokens: Mapping[str, int]) -> dict[str, float]:
    total = sum(tokens.values()) or 1
    return {name: count / total for name, count in sorted(tokens.items(), key=lambda item: -item[1])}


def _sources(corpus: Manifest) -> list[dict[str, Any]]:
    rows = sorted(tally.kept_rows(corpus.details["funnel"]), key=lambda row: -row[3])
    return [
        {"source": row[0] or "unknown", "language": row[1] or "unknown", "documents": row[2], "bytes": row[3]}
        for row in rows
    ]


def _licences(corpus: Manifest) -> list[str]:
    """Look at the metadata of some parts: what their documents tell of licences."""
    parts = [part for part in parts_of(corpus) if part.rows]
    found: set[str] = set()
    for part in parts[:: max(1, -(-len(parts) // _LICENCE_PARTS))]:
        told = pc.extract_regex(read_rows(part.uri, ["metadata"])["metadata"], _LICENCE)
        found |= {name[:80] for name in pc.struct_field(told, "name").unique().to_pylist() if name}
    return sorted(found)[:_MOST_LICENCES]


def _drops(manifest: Manifest) -> dict[str, int]:
    return dict(sorted(manifest.drops.items(), key=lambda item: -item[1]))


def _training(manifest: Manifest) -> dict[str, Any]:
    start = manifest.details.get("start") or next((name for name in _TRAINED if name in manifest.inputs), "")
    return {
        "stage": manifest.stage,
        "start": start,
        "steps": int(manifest.metrics.get("steps", manifest.rows)),
        "tokens": manifest.tokens,
        "loss": manifest.metrics.get("last_validation_loss", float("nan")),
    }


def _tokenizer(manifest: Manifest) -> str:
    details = manifest.details
    told = details.get("decision") or (
        f"imported from {details['imported_from']}" if details.get("imported_from") else "trained on this corpus"
    )
    return f"{told} ({details.get('vocab_size', manifest.rows):,})"
