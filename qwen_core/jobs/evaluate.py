"""`evaluate`: what each model learnt, on held-out data, and what the aligned one says.

pretrain, sft, dpo ─▶ (one Ray task each) bits per byte by language and source, answer loss, preference accuracy,
                      tasks of lm-evaluation-harness where the recipe names any
dpo ─▶ one reply to each of the recipe's prompts
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

import ray

from qwen_core.artifacts import Manifest, Outcome
from qwen_core.jobs.champion import Measure, figures_of, sets_of
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.found import find_model
from qwen_core.jobs.gate import BITS
from qwen_core.jobs.measuring import Replies, measure, measure_again, run_harness
from qwen_core.model import Sampling
from qwen_core.tracking.folder import FolderRun
from qwen_core.tracking.registry import find_champion

_LOG = logging.getLogger(__name__)
_MODELS = ("pretrain", "sft", "dpo")


def run(context: Context) -> Outcome:
    """Measure all models.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; metrics are named `<model>.<measure>`, details hold the samples.
    """
    connect_ray()
    data = _data(context.inputs)
    settings = context.section.model_dump()
    settings["sampling"] = Sampling(**settings["sampling"], seed=context.recipe.seed)
    options = _resources(context)
    waiting: dict[Any, str] = {}
    for name in _MODELS:
        folder = context.inputs[name].path("model")
        waiting[ray.remote(**options)(measure).remote(folder, data, settings, name == "dpo")] = name
        if settings["tasks"]["names"] and name in settings["tasks"]["models"]:
            waiting[ray.remote(**options)(run_harness).remote(folder, settings["tasks"], context.recipe.seed)] = name
    metrics, samples = _gather(context, waiting)
    sets = sets_of(context.inputs, context.store)
    _measure_champion(context, sets)
    text = "\n\n".join(f"### {s['name']}: {s['prompt']}\n\n{s['reply']}" for s in samples)
    context.run.log_text(text, "samples.md")
    report = {"metrics": metrics, "samples": samples}
    context.store.write(f"{context.attempt.data_uri}/report.json", json.dumps(report, ensure_ascii=False, indent=1))
    return Outcome(rows=len(_MODELS), metrics=metrics, details={"samples": samples, "sets": sets})


def champion_measure(context: Context, made: Mapping[str, Manifest]) -> Measure:
    """Give what measures a champion on the held-out data of a run, as a Ray task.

    Args:
        context: Of the stage that asks.
        made: Manifests of the run: `pack`, `instruct`, `preference`.

    Returns:
        To be called with a model's folder, or its name in MLflow's registry.
    """

    def measured(named: str) -> dict[str, float]:
        connect_ray()
        folder = find_model(named, context.store, context.mlflow_run.tracking_uri).uri
        return ray.get(ray.remote(**_resources(context))(measure_again).remote(folder, _data(made)))

    return measured


def _measure_champion(context: Context, sets: dict[str, str]) -> None:
    """Measure the champion on this run's data, where its own figures are of other data; `release` compares them."""
    run = context.run
    if isinstance(run, FolderRun):
        return
    try:
        champion = find_champion(run.tracking_uri, context.recipe.release.model_name)
    except Exception as error:  # MLflow that is away stops no stage but `release`, which then does the measuring
        _LOG.warning("the champion is not measured now, for MLflow does not answer: %s", str(error)[:300])
        return
    if champion is None:
        return
    figures = figures_of(champion, sets, context.store, champion_measure(context, context.inputs))
    bits = figures.get(BITS, math.nan)
    print(f"[evaluate] champion version {champion.version}: {bits:.4f} bits per byte", flush=True)
    run.log_metrics({f"champion.{name}": value for name, value in figures.items()}, step=0)


def _data(inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    return {
        "packed": inputs["pack"],
        "instruct": inputs["instruct"].path("validation.arrow"),
        "preference": inputs["preference"].path("validation.arrow"),
        "tokenizer": inputs["instruct"].path("tokenizer"),
    }


def _resources(context: Context) -> dict[str, Any]:
    return {"num_cpus": 1, "num_gpus": 1 if context.recipe.parallel.use_gpu else 0}


def _gather(context: Context, waiting: dict[Any, str]) -> tuple[dict[str, float], Replies]:
    """Wait for all measurements, reporting progress."""
    metrics: dict[str, float] = {}
    samples: Replies = []
    pending, total = list(waiting), len(waiting)
    while pending:
        (ready,), pending = ray.wait(pending, num_returns=1)
        figures, replies = ray.get(ready)
        metrics |= {f"{waiting[ready]}.{name}": value for name, value in figures.items()}
        samples += replies
        context.progress(total - len(pending), total, "measurements")
    return metrics, samples
