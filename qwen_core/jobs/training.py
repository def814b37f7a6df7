"""What the jobs of all training stages do alike: check that data and model fit, start, draw the curves, tell.

folder | architecture and seed ─▶ Start: model without memory, source of its weights ─▶ run_training ─▶ Outcome
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_core.artifacts import Manifest, Outcome, local_copy
from qwen_core.config.align import Lora
from qwen_core.config.recipe import Recipe
from qwen_core.config.training import Optimiser
from qwen_core.errors import InputError, RecipeError
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.folders import ModelFolder, check_ids, check_positions, check_same_tokenizer, open_folder
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.model.initialise import mup_learning_rate_scales
from qwen_core.model.moe import router_of
from qwen_core.parallel.layout import Source
from qwen_core.tokenizer import load_tokenizer
from qwen_core.tracking.figures import loss_curve
from qwen_core.tracking.folder import FolderRun
from qwen_core.tracking.leftover import keep_waiting
from qwen_core.tracking.spool import spool_folder
from qwen_core.train.alerts import AlertPlan
from qwen_core.train.launch import Plan, train
from qwen_core.train.loop import summarise
from qwen_core.train.lora import Adapters
from qwen_core.train.task import Task
from qwen_core.train.weights import AdaptedWeights, FolderWeights, empty_model


@dataclass(frozen=True)
class Start:
    """The model that a training stage starts from.

    Attributes:
        config: Its architecture.
        source: Gives its weights, one at a time.
    """

    config: ModelConfig
    source: Source


def start_from(folder: ModelFolder, uri: str) -> Start:
    """Start from a model folder.

    Args:
        folder: That was found to be whole.
        uri: Where workers on other machines find it too.

    Returns:
        The start.
    """
    return Start(folder.config, FolderWeights(folder.config, uri))


def run_training(
    context: Context,
    start: Start,
    make_task: Callable[[CausalLM], Task],
    tokenizer_uri: str,
    settings: Optimiser | None = None,
) -> Outcome:
    """Run a training stage and tell its outcome.

    Args:
        context: The stage's.
        start: The model that it starts from.
        make_task: Builds the stage's side of the loop, on each worker.
        tokenizer_uri: Folder whose tokenizer files go with the model.
        settings: Instead of the stage's section of the recipe.

    Returns:
        The outcome; `rows` is the number of optimiser steps.
    """
    connect_ray()
    settings = context.section if settings is None else settings
    recipe = context.recipe
    tokenizer = load_tokenizer(local_copy(tokenizer_uri))
    adapters = adapters_of(context.stage.name, recipe)
    source = start.source
    if adapters is not None:
        source = AdaptedWeights(source, start.config, adapters, recipe.seed)
    train(
        Plan(
            stage=context.stage.name,
            settings=settings,
            parallel=recipe.parallel,
            seed=recipe.seed,
            make_model=lambda: prepared_model(start.config, recipe, adapters),
            make_task=make_task,
            output_uri=context.attempt.data_uri,
            state_uri=context.attempt.state_uri,
            tokenizer_uri=tokenizer_uri,
            eos_token_id=tokenizer.eos_id,
            pad_token_id=tokenizer.endoftext_id,
            run=context.run,
            alerts=AlertPlan.from_environment(os.environ, settings.guards.alert_every_seconds),
            identity={name: manifest.fingerprint for name, manifest in context.inputs.items()},
            source=source,
            learning_rate_scales=_scales(start.config, recipe),
            adapters=adapters,
        )
    )
    _keep_waiting_points(context)
    history = [json.loads(line) for line in Path(local_copy(context.output("history.jsonl"))).read_text().splitlines()]
    context.run.log_figure(loss_curve(history, context.stage.name), "loss_curve.png")
    figures = summarise(history, settings)
    figures["parameters"] = float(open_folder(local_copy(context.output("model"))).num_parameters)
    tokens = int(max(event.get("train/tokens", 0) for event in history))
    return Outcome(rows=settings.max_steps, tokens=tokens, metrics=figures)


def _keep_waiting_points(context: Context) -> None:
    """Move points that MLflow did not take while the workers ran: the commit deletes the folder where they wait."""
    if not isinstance(context.run, FolderRun):
        keep_waiting(context.run, spool_folder(context.attempt.state_uri))


def _scales(config: ModelConfig, recipe: Recipe) -> Mapping[str, float]:
    """Tell muP's factors on the learning rate, where the weights are drawn its way."""
    is_mup = recipe.model.init == "mup"
    return mup_learning_rate_scales(config, recipe.model.init_base_width) if is_mup else {}


def prepared_model(config: ModelConfig, recipe: Recipe, adapters: Adapters | None) -> CausalLM:
    """Build a model as the recipe wants it trained, on the meta device.

    Args:
        config: Its architecture.
        recipe: Says what is computed anew, and where experts are balanced.
        adapters: What is trained instead of the weights.

    Returns:
        The model.
    """
    model = empty_model(config, adapters)
    model.gradient_checkpointing = "full" if recipe.model.gradient_checkpointing else "none"
    router_of(model, recipe.model.router_aux_loss)
    return model


def adapters_of(stage: str, recipe: Recipe) -> Adapters | None:
    """Read a stage's `lora` section.

    Args:
        stage: The stage's word.
        recipe: The whole recipe.

    Returns:
        The adapters; `None` where all weights are trained.

    Raises:
        RecipeError: They cannot be trained with the rest of the recipe.
    """
    section: Lora | None = getattr(getattr(recipe, stage), "lora", None)
    if section is None or not section.enabled:
        return None
    parallel = recipe.parallel
    if parallel.is_three_dimensional:
        raise RecipeError(
            f"{stage}.lora.enabled works with ZeRO alone: parallel.tensor ({parallel.tensor}) and parallel.pipeline "
            f"({parallel.pipeline}) must be 1. With zero_stage 3 the frozen model is spread over all workers too"
        )
    if section.dropout and recipe.model.gradient_checkpointing:
        raise RecipeError(
            f"{stage}.lora.dropout ({section.dropout}) cannot be drawn again when layers are computed anew: set it to "
            f"0, or model.gradient_checkpointing to false"
        )
    return Adapters(section.rank, section.alpha, section.target_modules, section.dropout, section.use_rslora)


def start_of(model: Manifest, data: Manifest, section: str) -> Start:
    """Start from the model that a training stage made; what it cannot learn from is refused before any worker starts.

    Args:
        model: Of the stage that made the model.
        data: Of `instruct` or `preference`.
        section: The data's recipe section.

    Returns:
        The start.

    Raises:
        ArtifactError: The model's files are missing, cut off, or of another architecture.
        InputError: Ids mean other tokens to the model or have no embedding, or a sequence is too long for it.
    """
    uri = model.path("model")
    folder = open_folder(local_copy(uri))
    told = f"the data of '{data.stage}'"
    remedy = f"Make both from one tokenizer: run tokenizer, {model.stage} and {data.stage} under one run key"
    if "tokenizer/tokenizer.json" in data.files:
        ours = load_tokenizer(local_copy(data.path("tokenizer")))
        theirs = load_tokenizer(folder.place)
        check_same_tokenizer(ours, theirs, told, f"the model of '{model.stage}'", remedy)
        if model.stage == "sft" and ours.template.text != theirs.template.text:
            raise InputError(
                f"{told} was rendered with another chat template than the model of '{model.stage}' learnt: give "
                f"{section}.template and {section}.system the values that instruct has, and run {data.stage} again"
            )
    check_ids(data.details.get("max_token_id", 0), folder.config.vocab_size, told)
    longest = data.details.get("max_tokens", 0)
    check_positions(folder.config, longest, told, f"Lower {section}.max_seq_len, so that longer ones are dropped")
    return start_from(folder, uri)
