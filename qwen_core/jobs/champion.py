"""The champion's figures on a challenger's held-out data: known from its tags, or measured anew.

    tags of the version ─▶ measured on the same sets? ─┬─▶ its figures
                                                       └─▶ model from the store, or the registry ─▶ measure ─▶ figures

What was measured is kept in the store, so that `release` need not do again what `evaluate` did.

A set is known by the hash of its content. A champion with another tokenizer is measured on the same held-out texts,
encoded its way; answers and preferences, which are kept as tokens, are then not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from qwen_core.artifacts import Manifest, Store
from qwen_core.jobs.gate import ACCURACY, ANSWERS, BITS
from qwen_core.jobs.lineage import lineage_of_version
from qwen_core.tracking.registry import Registered

SETS = ("heldout", "instruct", "preference")
SETS_TAG, FIGURES_TAG = "sets", "figures"
_SET_OF = {BITS: "heldout", ANSWERS: "instruct", ACCURACY: "preference"}

Measure = Callable[[str], dict[str, float]]
"""Measures the model in a folder, which lies where its argument says."""


def figures_of(champion: Registered, sets: Mapping[str, str], store: Store, measure: Measure) -> dict[str, float]:
    """Find the champion's figures on some held-out data.

    Args:
        champion: The version.
        sets: Content hash of each of `SETS`.
        store: Keeps what was measured.
        measure: Called with the model's folder where the figures are not known.

    Returns:
        Figures by name, as `gate.judge` takes them.
    """
    theirs = json.loads(champion.tags.get(SETS_TAG, "{}"))
    if all(theirs.get(name) == sets[name] for name in SETS):
        told: dict[str, float] = json.loads(champion.tags[FIGURES_TAG])
        return told
    place = f"{store.root}/evaluate/champions/{_key(champion, sets)}.json"
    kept = store.read(place)
    if kept is None:
        figures = measure(_model_of(champion, store))
        store.write(place, json.dumps({"name": champion.name, "version": champion.version, "figures": figures}))
        return figures
    known: dict[str, float] = json.loads(kept)["figures"]
    return known


def compared(metrics: Mapping[str, float], model: str) -> dict[str, float]:
    """Take the figures that the gate compares.

    Args:
        metrics: Of `evaluate`, named `<model>.<figure>`.
        model: Which one's.

    Returns:
        Figures by name.
    """
    figures = {name.removeprefix(f"{model}."): value for name, value in metrics.items() if name.startswith(f"{model}.")}
    return {name: value for name, value in figures.items() if name.partition("/")[0] in _SET_OF}


def sets_of(inputs: Mapping[str, Manifest], store: Store) -> dict[str, str]:
    """Hash the held-out data of a run.

    Args:
        inputs: Manifests of `pack`, `instruct` and `preference`.
        store: Where they lie.

    Returns:
        Content hash of each of `SETS`.
    """
    pack = inputs["pack"]
    told = {"heldout": pack.details.get("heldout_digest", pack.fingerprint)}
    for name in ("instruct", "preference"):
        content = store.read(inputs[name].path("validation.arrow")) or b""
        told[name] = hashlib.blake2b(content, digest_size=8).hexdigest()
    return told


def language_bytes(pack: Manifest) -> dict[str, int]:
    """Tell how much text of each language is held out.

    Args:
        pack: The manifest.

    Returns:
        UTF-8 bytes by language.
    """
    sizes: dict[str, int] = {}
    for row in pack.details.get("heldout", []):
        sizes[row["language"]] = sizes.get(row["language"], 0) + row["bytes"]
    return sizes


def _model_of(champion: Registered, store: Store) -> str:
    """Name the folder of the champion's model: of its artifact, or brought from the registry."""
    made: dict[str, Any] = lineage_of_version(store, champion)
    if "dpo" in made:
        return str(made["dpo"].path("model"))
    return f"models:/{champion.name}/{champion.version}"


def _key(champion: Registered, sets: Mapping[str, str]) -> str:
    told = [champion.name, champion.version, champion.tags.get("model_fingerprint", ""), dict(sets)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
