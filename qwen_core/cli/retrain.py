"""`qwen-core retrain`: what is new since the last training, and the pipeline run that takes it up."""

from __future__ import annotations

import datetime
import json
import sys
import time
from typing import Any

import click

from qwen_core.artifacts import Store
from qwen_core.cli.board import Board
from qwen_core.cli.follow import Follower, StageFailedError
from qwen_core.cli.options import home_option, new_run_key, recipe_address, recipe_option, set_option, with_inputs
from qwen_core.cli.run import form_values
from qwen_core.cli.summary import print_summary
from qwen_core.config import Recipe, load_recipe
from qwen_core.errors import NothingToDoError
from qwen_core.platform import Platform
from qwen_core.stages import DAGS, STAGES

_DAG = "retrain"
_POLL_SECONDS = 1.5


@click.command()
@recipe_option
@click.option("--input", "inputs", multiple=True, metavar="PATH", help="Instead of the recipe's inputs. Repeatable.")
@set_option
@click.option("--date", default=None, metavar="YYYY-MM-DD", help="Stands for {date} in ingest.inputs [default: today].")
@click.option("--run-key", default=None, help="Name of the pipeline run [default: a new one].")
@click.option("--plan", "plan_only", is_flag=True, help="Only tell what would be done.")
@click.option("--local", is_flag=True, help="Run the stages on a local Ray, without Airflow.")
@click.option("--approval", is_flag=True, help="A person decides whether the model becomes champion.")
@click.option("--no-wait", is_flag=True, help="Trigger the DAG only; do not follow.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable: the plan, or why there is none.")
@home_option
def retrain(
    recipe_name: str, inputs: tuple[str, ...], overrides: tuple[str, ...], home: str | None, **given: Any
) -> None:
    """Retrain, if there is anything new: only new files are read, the model goes on from the champion.

    Looks at the sources, the corpus so far and the champion, and triggers DAG `retrain` in Airflow, whose run is
    followed. Nothing new, nothing run: the reason is told, and the exit code is 9.

    \b
    Examples:
      qwen-core retrain --recipe mine.yaml --plan
      qwen-core retrain --recipe mine.yaml
      qwen-core retrain --recipe mine.yaml --set retrain.init_from=scratch --approval
      qwen-core retrain --recipe mine.yaml --date 2026-01-31 --local
    """
    settled = with_inputs(overrides, inputs)
    if given["approval"]:
        settled.append("release.approval=true")
    address = recipe_address(recipe_name)
    loaded = load_recipe(address, settled)
    platform = Platform(home)
    key = given.pop("run_key") or new_run_key(recipe_name)
    date = given.pop("date") or datetime.datetime.now().astimezone().date().isoformat()
    if given["plan_only"] or given["local"]:
        _plan(platform, (address, settled, loaded), key, date, **given)
        return
    _through_airflow(platform, form_values(address, settled, key, given["approval"]) | {"date": date}, key, **given)


def _plan(platform: Platform, named: tuple[str, list[str], Recipe], key: str, date: str, **given: Any) -> None:
    """Plan here, and run the stages here where that is asked for."""
    from qwen_core.jobs.news import Asked
    from qwen_core.jobs.planning import plan  # loads MLflow

    platform.prepare_local()
    address, settled, loaded = named
    asked = Asked(address, tuple(settled), loaded, key, date)
    now = datetime.datetime.now(datetime.UTC)
    try:
        record = plan(asked, Store(platform.store_root), platform.tracking_uri, now, is_binding=not given["plan_only"])
    except NothingToDoError as reason:
        if given["as_json"]:
            click.echo(json.dumps({"run_key": None, "reason": str(reason)}, ensure_ascii=False, indent=1))
        else:
            click.echo(f"nothing to do: {reason}")
        sys.exit(reason.exit_code)
    _show(record.result, given["as_json"])
    if given["local"] and not given["plan_only"]:
        _run_here(platform, record.result, given["as_json"])


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=1))
        return
    click.echo(result["reason"])
    click.echo(f"run key  {result['run_key']}")
    for override in result["overrides"]:
        click.echo(f"  --set {override}")


def _run_here(platform: Platform, result: dict[str, Any], is_quiet: bool) -> None:
    """Run all stages with a plan's settings, as `qwen-core stage all` does."""
    from qwen_core.jobs.runner import run_stage

    recipe = load_recipe(result["recipe"], result["overrides"])
    for name in STAGES:
        run_stage(name, recipe, result["run_key"], Store(platform.store_root), platform.tracking_uri)
    if not is_quiet:
        print_summary(platform, result["run_key"])


def _through_airflow(platform: Platform, conf: dict[str, Any], key: str, **given: Any) -> None:
    """Trigger DAG `retrain`, and follow what it starts."""
    platform.up(progress=lambda text: click.echo(text, err=True))
    run_id = platform.airflow.trigger(_DAG, conf)
    page = platform.dag_run_url(_DAG, run_id)
    click.echo(f"Airflow  {page}", err=given["as_json"])
    if given["no_wait"]:
        return
    try:
        settings = RetrainFollower(platform, key).wait_for_plan(run_id)
    except KeyboardInterrupt:
        click.echo(f"\nNo longer following; the DAGs go on: {page}", err=True)
        sys.exit(130)
    if settings is None:
        reason = f"nothing to do; the log of the task plan tells why: {page}/tasks/plan"
        click.echo(json.dumps({"run_key": None, "reason": reason}) if given["as_json"] else reason)
        sys.exit(NothingToDoError.exit_code)
    _show(settings, given["as_json"])
    follower = RetrainFollower(platform, settings["run_key"])
    try:
        with Board() as board:
            follower.follow_from(run_id, board)
    except KeyboardInterrupt:
        click.echo(f"\nNo longer following; the DAGs go on: {page}", err=True)
        sys.exit(130)
    except StageFailedError as failure:
        click.secho(f"\nstage '{failure.stage}' failed", fg="red", bold=True, err=True)
        click.echo(str(failure), err=True)
        sys.exit(failure.exit_code)
    if not given["as_json"]:
        print_summary(platform, settings["run_key"])


class RetrainFollower(Follower):
    """Follows a retraining: first its plan, then the chain of DAGs that it starts."""

    def wait_for_plan(self, run_id: str) -> dict[str, Any] | None:
        """Wait until it is planned.

        Args:
            run_id: The run of DAG `retrain`.

        Returns:
            The plan; `None` where there is nothing to do.

        Raises:
            QwenCoreError: The plan failed; the text holds the end of its log.
        """
        while True:
            state = self._airflow.dag_run(_DAG, run_id)["state"]
            tasks = {task["task_id"]: task for task in self._airflow.task_instances(_DAG, run_id)}
            if state == "failed":
                self._raise_failure(_DAG, run_id, tasks)
            planned = tasks.get("plan", {}).get("state")
            if planned == "success":
                answer: dict[str, Any] = self._airflow.xcom(_DAG, run_id, "plan", "return_value")
                return answer
            if planned == "skipped" or state == "success":
                return None
            time.sleep(_POLL_SECONDS)

    def follow_from(self, run_id: str, board: Board) -> None:
        """Follow the chain.

        Args:
            run_id: The run of DAG `retrain`.
            board: Where to show it.

        Raises:
            StageFailedError: A stage failed for good.
            QwenCoreError: The next DAG did not start.
        """
        before = _DAG
        for dag in DAGS:
            run_id = self._handover(before, run_id, dag)
            self._follow_dag(dag, run_id, board)
            before = dag
