"""What the jobs of all training stages do alike: name the folders, log, draw the curves, tell the outcome."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from qwen_core.artifacts import Manifest, Outcome, local_copy
from qwen_core.config.training import Optimiser
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.model import CausalLM, load_pretrained
from qwen_core.tokenizer import load_tokenizer
from qwen_core.tracking.figures import loss_curve
from qwen_core.train.alerts import AlertPlan
from qwen_core.train.launch import Plan, train
from qwen_core.train.loop import summarise
from qwen_core.train.task import Task


def run_training(
    context: Context,
    make_model: Callable[[], CausalLM],
    make_task: Callable[[CausalLM], Task],
    tokenizer_uri: str,
) -> Outcome:
    """Run a training stage and tell its outcome.

    Args:
        context: The stage's.
        make_model: Builds the full model on each worker.
        make_task: Builds the stage's side of the loop.
        tokenizer_uri: Folder whose tokenizer files go with the model.

    Returns:
        The outcome; `rows` is the number of optimiser steps.
    """
    connect_ray()
    settings: Optimiser = context.section
    tokenizer_folder = local_copy(tokenizer_uri)
    tokenizer = load_tokenizer(tokenizer_folder)
    train(
        Plan(
            stage=context.stage.name,
            settings=settings,
            parallel=context.recipe.parallel,
            seed=context.recipe.seed,
            make_model=make_model,
            make_task=make_task,
            output_uri=context.attempt.data_uri,
            state_uri=context.attempt.state_uri,
            tokenizer_folder=tokenizer_folder,
            eos_token_id=tokenizer.im_end_id,
            pad_token_id=tokenizer.endoftext_id,
            run=context.run,
            alerts=AlertPlan.from_environment(os.environ, settings.guards.alert_every_seconds),
            identity={name: manifest.fingerprint for name, manifest in context.inputs.items()},
        )
    )
    history = [json.loads(line) for line in Path(local_copy(context.output("history.jsonl"))).read_text().splitlines()]
    context.run.log_figure(loss_curve(history, context.stage.name), "loss_curve.png")
    figures = summarise(history, settings)
    with safe_open(Path(local_copy(context.output("model"))) / "model.safetensors", "pt") as weights:
        figures["parameters"] = float(sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()))  # noqa: SIM118 - no mapping
    tokens = int(max(event.get("train/tokens", 0) for event in history))
    return Outcome(rows=settings.max_steps, tokens=tokens, metrics=figures)


def split_files(manifest: Manifest, split: str) -> list[str]:
    """List the Arrow files of a split, on this machine.

    Args:
        manifest: Of a stage with splits.
        split: `train` or `validation`.

    Returns:
        Local paths, sorted.
    """
    names = sorted(name for name in manifest.files if name.startswith(f"{split}/") and name.endswith(".arrow"))
    return [local_copy(manifest.path(name)) for name in names]


def model_of(manifest: Manifest) -> CausalLM:
    """Load the model that a training stage made.

    Args:
        manifest: Of `pretrain`, `sft` or `dpo`.

    Returns:
        The model, in fp32.
    """
    return load_pretrained(local_copy(manifest.path("model")))
