"""`release`: the aligned model into MLflow's registry as challenger; through the gate it becomes champion.

    evaluate, dpo ─▶ register ─▶ champion on the same data ─▶ gate ─▶ card ─┬─▶ passed: promote, or wait for a person
                                                                            └─▶ refused: stays challenger

The gate compares what does not depend on the tokenizer, or was measured with the same one. See `jobs.gate`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import qwen_core
from qwen_core.artifacts import Manifest, Outcome, local_copy
from qwen_core.jobs.carded import CARD, NOTES, card_texts
from qwen_core.jobs.champion import FIGURES_TAG, SETS_TAG, compared, figures_of, language_bytes
from qwen_core.jobs.context import Context
from qwen_core.jobs.evaluate import champion_measure
from qwen_core.jobs.gate import Limits, as_rows, decision, judge
from qwen_core.jobs.lineage import lineage_of
from qwen_core.tracking.promotion import promote
from qwen_core.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    Registered,
    describe_version,
    find_champion,
    find_version,
    register_model,
)

PROMOTED, AWAITING, REFUSED = "promoted", "awaiting_approval", "refused"
_MODEL = "dpo"


def run(context: Context) -> Outcome:
    """Register the model, judge it, and promote it where it passes and no person is to be asked.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; details tell name, version, decision, its reason and every check.
    """
    section, evaluated, model = context.section, context.inputs["evaluate"], context.inputs[_MODEL]
    tracking_uri, sets = context.mlflow_run.tracking_uri, evaluated.details["sets"]
    made = lineage_of(context.store, evaluated)
    champion = _rival(tracking_uri, section.model_name, model)
    figures, theirs = compared(evaluated.metrics, _MODEL), None
    if champion is not None:
        theirs = figures_of(champion, sets, context.store, champion_measure(context, made))
    checks = judge(theirs, figures, _limits(section), language_bytes(made["pack"]))
    is_passed, reason = decision(checks, champion.version if champion else None)
    decided = REFUSED if not is_passed else AWAITING if section.approval else PROMOTED
    texts = card_texts(context, made, champion, as_rows(checks), f"{decided}, {reason}")
    tags = _tags(context, evaluated, model, sets, figures) | {"gate": "passed" if is_passed else REFUSED}
    version = _register(context, model, texts, tags | {"gate_reason": reason[:1000]})
    _tell(context, version, as_rows(checks), texts)
    if decided == PROMOTED:
        promote(tracking_uri, version, f"release of run {context.attempt.run_key}", reason)
    print(f"[release] {section.model_name} version {version.version}: {decided}: {reason}", flush=True)
    details = {
        "name": version.name,
        "version": version.version,
        "decision": decided,
        "reason": reason,
        "champion": champion.version if champion else None,
        "aliases": [CHALLENGER, CHAMPION] if decided == PROMOTED else [CHALLENGER],
        "checks": as_rows(checks),
        "comparison_path": context.mlflow_run.comparison_path(),
    }
    context.store.write(f"{context.attempt.data_uri}/release.json", json.dumps(details, indent=1, ensure_ascii=False))
    return Outcome(rows=1, details=details)


def result_of(manifest: Manifest, tracking_uri: str) -> dict[str, Any]:
    """Answer the operator: what was decided, as it stands now.

    Args:
        manifest: Of this stage.
        tracking_uri: MLflow server or database.

    Returns:
        `name`, `version`, `decision`, `reason`, `champion`, `checks` and `comparison_path`. What waited for a person
        and is champion by now, was promoted.
    """
    names = ("name", "version", "decision", "reason", "champion", "checks", "comparison_path")
    told = {name: manifest.details.get(name) for name in names}
    if told["decision"] is None:  # of a release before there were decisions
        told["decision"] = PROMOTED if CHAMPION in manifest.details["aliases"] else REFUSED
    if told["decision"] == AWAITING:
        champion = find_champion(tracking_uri, manifest.details["name"])
        if champion is not None and champion.version == told["version"]:
            told["decision"] = PROMOTED
    return told


def _tags(
    context: Context, evaluated: Manifest, model: Manifest, sets: dict[str, str], figures: dict[str, float]
) -> dict[str, str]:
    """Name what a later challenger, or a person, looks for at a version."""
    return {
        "run_key": context.attempt.run_key,
        "model_fingerprint": model.fingerprint,
        "manifest": model.uri,
        "heldout": sets["heldout"],
        SETS_TAG: json.dumps(sets),
        FIGURES_TAG: json.dumps({name: round(value, 6) for name, value in figures.items()}),
        **{name: f"{value:.6g}" for name, value in evaluated.metrics.items() if "/" not in name},
    }


def _limits(section: Any) -> Limits:
    return Limits(**{name: getattr(section, name) for name in Limits.__dataclass_fields__})


def _rival(tracking_uri: str, name: str, model: Manifest) -> Registered | None:
    """Find the champion to compare with; where an attempt was killed behind its promotion, the one before it."""
    champion = find_champion(tracking_uri, name)
    if champion is None or champion.tags.get("model_fingerprint") != model.fingerprint:
        return champion
    previous = champion.tags.get("previous")
    return find_version(tracking_uri, name, previous) if previous else None


def _register(context: Context, model: Manifest, texts: dict[str, str], tags: dict[str, str]) -> Registered:
    """Register the model folder, its card beside it."""
    with tempfile.TemporaryDirectory() as place:
        for name, text in texts.items():
            (Path(place) / name).write_text(text, encoding="utf-8")
        return register_model(
            context.mlflow_run,
            context.section.model_name,
            {"model": local_copy(model.path("model"))} | {Path(name).stem: f"{place}/{name}" for name in texts},
            Path(__file__).with_name("served.py"),
            f"qwen-core[train]=={qwen_core.__version__}",
            tags,
        )


def _tell(context: Context, version: Registered, rows: list[dict[str, Any]], texts: dict[str, str]) -> None:
    """Lay the checks, the card and the notes where people look for them."""
    context.run.log_table({name: [row[name] for row in rows] for name in rows[0]}, "gate")
    for name, text in texts.items():
        context.run.log_text(text, name)
        context.store.write(f"{context.attempt.data_uri}/{name}", text)
    describe_version(context.mlflow_run.tracking_uri, version, texts[CARD], texts[NOTES])
