"""The settings of a pipeline run: where a task finds them, how they are checked, what they become on a command line.

trigger form, or the asset event that started the DAG run ─▶ {recipe, overrides, run_key, date} ─▶ checked ─▶ command
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from airflow.sdk.exceptions import AirflowFailException

from qwen_core.config import bundled_recipes, load_recipe
from qwen_core.errors import RecipeError

Settings = dict[str, Any]
"""`recipe` (name or path), `overrides` (texts), `run_key`, `date` (YYYY-MM-DD or `None`)."""

SETTINGS = ("recipe", "overrides", "run_key", "date")


def settings_of(context: Any) -> Settings:
    """Find the settings of a pipeline run.

    Args:
        context: Airflow's.

    Returns:
        Those of the asset event that started the DAG run, else those of the form.
    """
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            if event.extra.get("run_key"):
                return {"overrides": [], "date": None} | {n: event.extra[n] for n in SETTINGS if n in event.extra}
    return form_settings(context)


def form_settings(context: Any) -> Settings:
    """Read the settings from the trigger form, or from its defaults where a DAG run started by itself.

    Args:
        context: Airflow's.

    Returns:
        The settings; the run key is the form's, or the DAG run's partition, or made of the DAG run's id, so that it
        is the same whenever the run's tasks are run again.
    """
    params = context["params"]
    overrides = list(params.get("overrides") or [])
    if params.get("inputs"):
        listed = yaml.safe_dump(list(params["inputs"]), default_flow_style=True, width=10**9, allow_unicode=True)
        overrides.append(f"ingest.inputs={listed.strip()}")
    if params.get("approval"):
        overrides.append("release.approval=true")
    run_key = params.get("run_key") or context.get("partition_key") or context["dag_run"].run_id
    return {
        "recipe": params.get("recipe_path") or params["recipe"],
        "overrides": overrides,
        "run_key": re.sub(r"[^A-Za-z0-9._-]", "-", run_key),
        "date": date_of(context),
    }


def date_of(context: Any) -> str | None:
    """Name the day that a DAG run is about, for `{date}` in the inputs.

    Args:
        context: Airflow's.

    Returns:
        The form's; of a scheduled or backfilled run the day at which its data begin; of one that an asset started the
        day of its start; `None` for one that was started by hand without a date.
    """
    run = context["dag_run"]
    if context["params"].get("date"):
        return str(context["params"]["date"])
    if run.run_type == "manual":
        return None
    begins = getattr(run, "data_interval_start", None) or getattr(run, "logical_date", None) or run.run_after
    return begins.strftime("%Y-%m-%d") if begins else None


def refuse_without_run(context: Any, dag_id: str) -> None:
    """Refuse to begin in the middle of the chain without an earlier run to go on from.

    Args:
        context: Airflow's.
        dag_id: The DAG, which goes on from what another one made.

    Raises:
        AirflowFailException: The DAG run was started by hand, and names no run.
    """
    is_named = context["params"].get("run_key") or context.get("partition_key")
    if not (is_named or context.get("triggering_asset_events")):
        raise AirflowFailException(f"'{dag_id}' goes on from an earlier run: give its run key in the trigger form")


def check_settings(settings: Settings, log: Any) -> None:
    """Load the recipe with its overrides before any job starts: what is wrong with it is told at once.

    Args:
        settings: As `settings_of` gives them.
        log: Of the task.

    Raises:
        AirflowFailException: The recipe has faults, each listed. It is not tried again.
    """
    recipe = settings["recipe"]
    if recipe not in bundled_recipes() and not Path(recipe).expanduser().is_file():
        log.info("%s cannot be read where Airflow runs; its job on the Ray cluster will check it", recipe)
        return
    try:
        load_recipe(recipe, settings["overrides"])
    except RecipeError as error:
        raise AirflowFailException(f"{error}\nNo job was started. Mend the recipe or the overrides.") from None


def command_line(words: Sequence[str], settings: Settings) -> str:
    """Compose the command of a job that works by a recipe.

    Args:
        words: What comes before the settings: the module, and the stage where it takes one.
        settings: As `settings_of` gives them.

    Returns:
        A shell command; the cluster's own environment names the store and MLflow.
    """
    command = ["python", "-m", *words, "--recipe", settings["recipe"], "--run-key", settings["run_key"]]
    if settings.get("date"):
        command += ["--date", settings["date"]]
    for override in settings["overrides"]:
        command += ["--set", override]
    return as_one_process(command)


def as_one_process(words: Sequence[str]) -> str:
    """Compose a shell command whose shell becomes the command.

    Ray 2.60 stops the processes that it finds below a job's shell: one that the shell is about to start escapes, and
    runs on behind a job that counts as stopped.

    Args:
        words: Program and arguments.

    Returns:
        The command.
    """
    return f"exec {shlex.join(words)}"


def event_of(settings: Settings, result: Mapping[str, Any]) -> dict[str, Any]:
    """Compose what an asset event tells.

    Args:
        settings: Of the pipeline run.
        result: Answer of the stage's job.

    Returns:
        The settings, by which the next DAG goes on, then all plain values of the job's answer: manifest, MLflow run,
        rows, tokens and whatever figures the job tells.
    """
    told = {name: value for name, value in result.items() if isinstance(value, str | int | float | bool)}
    return {**told, **settings}
