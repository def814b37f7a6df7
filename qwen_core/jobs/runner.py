"""Runs one stage: resolve inputs, skip what exists, do the work, commit, log.

    recipe + run key ──▶ manifests of the inputs ──▶ fingerprint ──▶ exists? say so and stop
                                                                └──▶ run(context) ──▶ manifest ──▶ MLflow

Every stage has a module of its name in this package, which defines `run(context) -> Outcome`; what it reads
beside the artifacts of its run is told by `sources`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qwen_core.artifacts import Attempt, Manifest, Outcome, Store
from qwen_core.config import Recipe, dump_recipe, load_recipe
from qwen_core.errors import ArtifactError, QwenCoreError
from qwen_core.jobs.context import Context
from qwen_core.jobs.sources import origin_hashes, source_hashes
from qwen_core.stages import STAGES, Stage
from qwen_core.tracking.folder import SCHEME, FolderRun, begin_folder_run

if TYPE_CHECKING:
    from qwen_core.tracking.runs import StageRun


def run_stage(name: str, recipe: Recipe, run_key: str, store: Store, tracking_uri: str) -> tuple[Manifest, bool]:
    """Run one stage of a pipeline run, unless its artifact exists.

    Args:
        name: The stage's word.
        recipe: The whole recipe.
        run_key: The pipeline run.
        store: Where artifacts lie.
        tracking_uri: MLflow server or database, or `folder:` and a path.

    Returns:
        The artifact's manifest, and whether it was already there.

    Raises:
        ArtifactError: An input stage has not run under this run key.
        QwenCoreError: The stage failed; the text says why and what to do.
    """
    stage = STAGES[name]
    inputs = _inputs_of(stage, store, run_key)
    sources = source_hashes(name, recipe) | origin_hashes(name, recipe, store, tracking_uri)
    attempt = store.begin(stage, recipe, run_key, inputs, sources)
    with _begin_run(tracking_uri, recipe, run_key, name, attempt.fingerprint) as run:
        run.log_params(_params_of(recipe, stage))
        for manifest in inputs.values():
            run.log_dataset(manifest, "input")
        done = store.find(name, attempt.fingerprint)
        if done is not None:
            tags = {"qwen_core.reused": "true", "qwen_core.origin_run_id": done.mlflow_run_id or ""}
            run.set_tags(tags)
            _log_result(run, done)
            store.point(run_key, done)
            print(f"[{name}] already done: {done.uri}", flush=True)
            return done, True
        started = time.monotonic()
        job = importlib.import_module(f"qwen_core.jobs.{name}")  # not sooner: a stage that is done needs none of it
        outcome: Outcome = job.run(Context(stage, recipe, store, attempt, run))
        _save_recipe(store, attempt, recipe)
        manifest = store.commit(attempt, outcome, time.monotonic() - started, run.run_id)
        store.point(run_key, manifest)
        _log_result(run, manifest)
        print(f"[{name}] done in {manifest.seconds:.1f} s: {manifest.uri}", flush=True)
        return manifest, False


def main(arguments: list[str] | None = None) -> int:
    """Command line of a job: `python -m qwen_core.jobs STAGE --recipe R --run-key K`.

    Args:
        arguments: Instead of the process's own.

    Returns:
        Exit code: 0, or the error's own code (see `qwen_core.errors`).
    """
    parser = argparse.ArgumentParser(prog="python -m qwen_core.jobs", description="Run one stage as a Ray job.")
    parser.add_argument("stage", choices=list(STAGES), metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--recipe", required=True, help="bundled name or path of a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--run-key", required=True, help="the pipeline run that this belongs to")
    parser.add_argument("--store", default=os.environ.get("QWEN_CORE_STORE"), help="root of the artifacts")
    parser.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"))
    given = parser.parse_args(arguments)
    name = given.stage
    missing = [flag for flag, value in (("--store", given.store), ("--tracking-uri", given.tracking_uri)) if not value]
    if missing:
        parser.error(f"{' and '.join(missing)} needed (or QWEN_CORE_STORE and MLFLOW_TRACKING_URI in the environment)")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts
    try:
        recipe = load_recipe(given.recipe, given.overrides)
        manifest, _ = run_stage(name, recipe, given.run_key, Store(given.store), given.tracking_uri)
    except QwenCoreError as error:
        print(f"[{name}] failed: {error}", flush=True)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        print(f"[{name}] failed: an unexpected error; the traceback above tells where", flush=True)
        return 1
    # The operator reads this line and the one that tells the run; they are the job's answer.
    print(f"qwen-core manifest: {manifest.uri}", flush=True)
    return 0


@contextmanager
def _begin_run(
    tracking_uri: str, recipe: Recipe, run_key: str, stage: str, fingerprint: str
) -> Iterator[StageRun | FolderRun]:
    """Open the stage's run in MLflow, or in a folder; MLflow takes seconds to load and is loaded only for the first."""
    if tracking_uri.startswith(SCHEME):
        with begin_folder_run(tracking_uri, stage) as folder:
            yield folder
        return
    from qwen_core.tracking.runs import begin_stage_run

    with begin_stage_run(tracking_uri, recipe, run_key, stage, fingerprint) as run:
        print(f"qwen-core mlflow run: {run.experiment_id}/{run.run_id}", flush=True)
        yield run


def _inputs_of(stage: Stage, store: Store, run_key: str) -> dict[str, Manifest]:
    """Find the artifacts of the input stages that this pipeline run got."""
    have = store.of_run(run_key)
    missing = [name for name in stage.inputs if name not in have]
    if missing:
        raise ArtifactError(
            f"stage '{stage.name}' reads the output of {' and '.join(missing)}, "
            f"which run '{run_key}' does not have yet. "
            f"Run first: qwen-core stage {' '.join(missing)} --run-key {run_key}"
        )
    return {name: have[name] for name in stage.inputs}


def _params_of(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Name params by section, as in the recipe, so that runs of all stages and their parent speak alike."""
    tree = recipe.model_dump(mode="json")
    return {"seed": recipe.seed} | {section: tree[section] for section in stage.sections}


def _save_recipe(store: Store, attempt: Attempt, recipe: Recipe) -> None:
    """Lay the resolved recipe beside the output."""
    store.write(f"{attempt.data_uri}/recipe.yaml", dump_recipe(recipe))


def _log_result(run: StageRun | FolderRun, manifest: Manifest) -> None:
    """Log what a manifest tells as metrics of the stage's run."""
    figures = {
        "rows": manifest.rows,
        "tokens": manifest.tokens,
        "bytes": manifest.bytes,
        "seconds": manifest.seconds,
    }
    figures |= {f"dropped.{reason}": count for reason, count in manifest.drops.items()}
    run.log_result(figures | manifest.metrics)
    run.log_dataset(manifest, "output")
