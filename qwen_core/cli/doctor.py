"""`qwen-core doctor`: what is wrong with a run's curves, why, and what to change."""

from __future__ import annotations

import json
import locale
import os
import sys
from collections.abc import Mapping, Sequence

import click
from rich.console import Console

from qwen_core.cli.options import home_option
from qwen_core.errors import InputError, MissingDependencyError

_ROLES = ("train_loss", "validation_loss", "learning_rate", "grad_norm", "loss_scale", "epoch", "tokens")
_FOUND = 1


@click.command()
@click.argument("target", metavar="RUN")
@click.option(
    "--tracking-uri",
    default=None,
    envvar="MLFLOW_TRACKING_URI",
    help="MLflow that holds the run: address, sqlite:///FILE or folder [default: the platform's].",
)
@home_option
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="[ROLE=]NAME",
    help=f"Which metric plays a role, where the doctor does not see it ({', '.join(_ROLES)}). A bare NAME is the "
    f"validation loss. Repeatable.",
)
@click.option("--lang", type=click.Choice(["en", "zh"]), default=None, help="Language [default: of the locale].")
@click.option("--strict", is_flag=True, help="End with exit code 1 when a fault or a warning is found.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor(
    target: str,
    tracking_uri: str | None,
    home: str | None,
    metrics: tuple[str, ...],
    lang: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Find out what is wrong with the curves of a run: ours, or any that MLflow holds.

    RUN is a run id, runs:/ID, a page of MLflow copied from the browser, a run key or name, an MLflow database or
    folder, a history.jsonl or a trainer_state.json, or a folder that holds one.

    \b
    Examples:
      qwen-core doctor demo-20260102-030405-9f3a               the training stages of a run of ours
      qwen-core doctor 'http://127.0.0.1:5000/#/experiments/1/runs/0f3a...'
      qwen-core doctor 0f3a... --tracking-uri sqlite:///mlflow.db
      qwen-core doctor checkpoint-500/trainer_state.json       of transformers' Trainer, without MLflow
      qwen-core doctor mlruns --metric validation_loss=dev/nll --strict
    """
    chosen = _chosen(metrics)
    try:
        from qwen_core.tracking.doctor.curves import read_runs
        from qwen_core.tracking.doctor.report import check_up, print_checkup, to_json
    except ImportError as fault:
        raise MissingDependencyError(f"{fault.name} is not installed: pip install 'qwen-core[train]'") from fault
    runs = read_runs(target, tracking_uri or _platform(home), chosen.values())
    _check_names(chosen, [set(run.curves) for run in runs], [set(run.others) for run in runs])
    checkups = [check_up(run, chosen) for run in runs]
    language = lang or _language()
    if as_json:
        told = {"runs": [to_json(one, language) for one in checkups]}
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        console = Console()
        for number, one in enumerate(checkups):
            if number:
                console.rule(style="dim")
            print_checkup(console, one, language, _is_plain())
    if strict and not all(one.is_healthy for one in checkups):
        sys.exit(_FOUND)


def _chosen(metrics: Sequence[str]) -> dict[str, str]:
    """Read `--metric` options; a name may hold `=` itself."""
    chosen = {}
    for given in metrics:
        role, is_given, name = given.partition("=")
        if not is_given or role not in _ROLES:
            if is_given and "/" not in role and " " not in role:
                raise InputError(f"--metric {given}: '{role}' is no role; roles are {', '.join(_ROLES)}")
            role, name = "validation_loss", given
        chosen[role] = name
    return chosen


def _check_names(chosen: Mapping[str, str], known: Sequence[set[str]], others: Sequence[set[str]]) -> None:
    for name in chosen.values():
        if not any(name in names for names in known):
            listed = ", ".join([*sorted(set().union(*known)), *sorted(set().union(*others))][:30])
            raise InputError(f"the run has no metric '{name}'. It has: {listed}")


def _platform(home: str | None) -> str:
    from qwen_core.platform import Platform

    return Platform(home).tracking_uri


def _language() -> str:
    """Take the language of the locale; Chinese or else English."""
    told = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return "zh" if (told or locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"


def _is_plain() -> bool:
    """Tell whether the terminal can show no more than ASCII."""
    return "utf" not in (sys.stdout.encoding or "").lower()
