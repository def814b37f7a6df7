"""`release`: the aligned model into MLflow's registry, as challenger; as champion where it is better.

Reads `evaluate`, `dpo`. The gate compares bits per byte on the held-out set, which does not depend on the tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path

import qwen_core
from qwen_core.artifacts import Outcome, local_copy
from qwen_core.jobs.context import Context
from qwen_core.tracking.registry import CHALLENGER, CHAMPION, Registered, find_champion, promote, register_model

_MEASURE = "dpo.bits_per_byte"


def run(context: Context) -> Outcome:
    """Register the model and decide.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; details tell name, version, aliases and the reason of the decision.
    """
    section, evaluated, model = context.section, context.inputs["evaluate"], context.inputs["dpo"]
    champion = find_champion(context.run.tracking_uri, section.model_name)
    tags = {
        "run_key": context.attempt.run_key,
        "model_fingerprint": model.fingerprint,
        "heldout": evaluated.inputs["pack"],
        **{name: f"{value:.6g}" for name, value in evaluated.metrics.items() if "/" not in name},
    }
    version = register_model(
        context.run,
        section.model_name,
        local_copy(model.path("model")),
        Path(__file__).with_name("served.py"),
        f"qwen-core[train]=={qwen_core.__version__}",
        tags,
    )
    is_better, reason = decide(champion, tags, section.max_bits_per_byte_regression_ratio)
    if is_better:
        promote(context.run.tracking_uri, version)
    print(f"[release] {section.model_name} version {version.version}: {reason}", flush=True)
    details = {
        "name": version.name,
        "version": version.version,
        "aliases": [CHALLENGER, CHAMPION] if is_better else [CHALLENGER],
        "reason": reason,
        "comparison_path": context.run.comparison_path(),
    }
    context.store.write(f"{context.attempt.data_uri}/release.json", json.dumps(details, indent=1))
    return Outcome(rows=1, details=details)


def decide(champion: Registered | None, tags: dict[str, str], max_regression_ratio: float) -> tuple[bool, str]:
    """Decide whether a challenger becomes champion.

    Args:
        champion: The present one.
        tags: The challenger's figures.
        max_regression_ratio: How much worse in bits per byte it may be.

    Returns:
        The decision and its reason, in words.
    """
    if champion is None:
        return True, "champion, as there was none"
    if champion.tags.get("heldout") != tags["heldout"]:
        return False, (
            f"challenger only: champion version {champion.version} was measured on another held-out set, "
            f"so the figures cannot be compared"
        )
    ours, theirs = float(tags[_MEASURE]), float(champion.tags[_MEASURE])
    told = f"{ours:.4f} against {theirs:.4f} bits per byte of version {champion.version}"
    if ours <= theirs * (1 + max_regression_ratio):
        return True, f"champion with {told}"
    return False, f"challenger only with {told}"
