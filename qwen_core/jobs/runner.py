"""Runs one stage: resolve inputs, skip what exists, do the work, commit, log.

    recipe + run key ──▶ manifests of the inputs ──▶ fingerprint ──▶ exists? say so and stop
                                                                └──▶ run(context) ──▶ manifest ──▶ MLflow

Every stage has a module of its name in this package, which defines `run(context) -> Outcome`; what it reads
beside the artifacts of its run is told by `sources`.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qwen_core.artifacts import Attempt, Manifest, Outcome, Store
from qwen_core.config import Recipe, dump_recipe, load_recipe
from qwen_core.errors import ArtifactError
from qwen_core.jobs.command import job_parser, print_result, run_command, with_places
from qwen_core.jobs.context import Context
from qwen_core.jobs.dated import with_date
from qwen_core.jobs.sources import origin_hashes, source_hashes
from qwen_core.stages import STAGES, Stage, stages_of
from qwen_core.tracking.folder import SCHEME, FolderRun, begin_folder_run
from qwen_core.tracking.reuse import reuse_tags, tell_reuse

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
    done = store.find(name, attempt.fingerprint)
    if done is not None and _told_lightly(tracking_uri, recipe, run_key, store, done, inputs):
        return done, True
    with _begin_run(tracking_uri, recipe, run_key, attempt, f"{store.root}/spool") as run:
        run.log_params(_params_of(recipe, stage))
        for manifest in inputs.values():
            run.log_dataset(manifest, "input")
        done = store.find(name, attempt.fingerprint)  # another may have been faster
        if done is not None:
            run.set_tags(reuse_tags(done))
            store.point(run_key, done)
            _log_result(run, done)
            _log_overview(run, store, run_key, stage)
            print(f"[{name}] already done: {done.uri}", flush=True)
            return done, True
        started = time.monotonic()
        job = importlib.import_module(f"qwen_core.jobs.{name}")  # not sooner: a stage that is done needs none of it
        outcome: Outcome = job.run(Context(stage, recipe, store, attempt, run))
        _save_recipe(store, attempt, recipe)
        manifest = store.commit(attempt, outcome, time.monotonic() - started, run.run_id if run.is_known else None)
        store.point(run_key, manifest)
        _log_result(run, manifest)
        _log_overview(run, store, run_key, stage)
        print(f"[{name}] done in {manifest.seconds:.1f} s: {manifest.uri}", flush=True)
        return manifest, False


def _told_lightly(
    tracking_uri: str, recipe: Recipe, run_key: str, store: Store, done: Manifest, inputs: dict[str, Manifest]
) -> bool:
    """Tell of a stage that is done without loading MLflow, where that can be; tell whether it was."""
    stage = STAGES[done.stage]
    if tracking_uri.startswith(SCHEME) or stage is stages_of(stage.dag)[-1]:  # the last one has an overview to draw
        return False
    params, spool = _params_of(recipe, stage), f"{store.root}/spool"
    ids = tell_reuse(tracking_uri, recipe, run_key, done, inputs, params, _figures_of(done), spool)
    if ids is None:
        return False
    print(f"qwen-core mlflow run: {ids.experiment}/{ids.run}", flush=True)
    store.point(run_key, done)
    print(f"[{stage.name}] already done: {done.uri}", flush=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Command line of a job: `python -m qwen_core.jobs STAGE --recipe R --run-key K`.

    Args:
        arguments: Instead of the process's own.

    Returns:
        Exit code: 0, or the error's own code (see `qwen_core.errors`).
    """
    parser = job_parser("qwen_core.jobs", "Run one stage as a Ray job.")
    parser.add_argument("stage", choices=list(STAGES), metavar="STAGE", help=", ".join(STAGES))
    given = with_places(parser, arguments)
    name = given.stage

    def work() -> None:
        recipe = with_date(load_recipe(given.recipe, given.overrides), given.date)
        manifest, _ = run_stage(name, recipe, given.run_key, Store(given.store), given.tracking_uri)
        # The operator reads these lines and the one that tells the run; they are the job's answer.
        if name == "release":
            from qwen_core.jobs.release import result_of  # loads MLflow

            print_result(result_of(manifest, given.tracking_uri))
        else:
            print_result(_headline(manifest))
        print(f"qwen-core manifest: {manifest.uri}", flush=True)

    return run_command(name, work)


@contextmanager
def _begin_run(
    tracking_uri: str, recipe: Recipe, run_key: str, attempt: Attempt, spool_uri: str
) -> Iterator[StageRun | FolderRun]:
    """Open the stage's run in MLflow, or in a folder; MLflow takes seconds to load and is loaded only for the first."""
    if tracking_uri.startswith(SCHEME):
        with begin_folder_run(tracking_uri, attempt.stage.name) as folder:
            yield folder
        return
    from qwen_core.tracking.runs import begin_stage_run

    with begin_stage_run(tracking_uri, recipe, run_key, attempt.stage.name, attempt.fingerprint, spool_uri) as run:
        if run.is_known:
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
    run.log_result(_figures_of(manifest))
    run.log_dataset(manifest, "output")


def _figures_of(manifest: Manifest) -> dict[str, float]:
    sizes = {"rows": manifest.rows, "tokens": manifest.tokens, "bytes": manifest.bytes, "seconds": manifest.seconds}
    return sizes | {f"dropped.{reason}": count for reason, count in manifest.drops.items()} | manifest.metrics


def _headline(manifest: Manifest) -> dict[str, float]:
    """Tell the operator the figures that a reader of the asset's events looks for; JSON has no NaN."""
    sizes = {"rows": manifest.rows, "tokens": manifest.tokens, "bytes": manifest.bytes, "seconds": manifest.seconds}
    figures = sizes | {name: value for name, value in manifest.metrics.items() if "/" not in name}
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _log_overview(run: StageRun | FolderRun, store: Store, run_key: str, stage: Stage) -> None:
    """With the last stage of a DAG, tell on the pipeline's run what was made, and what differs from its rival."""
    if isinstance(run, FolderRun) or stage is not stages_of(stage.dag)[-1]:
        return
    from qwen_core.tracking.overview import log_model_figures, log_overview

    log_overview(run, store, run_key)
    if stage.name == "release":
        log_model_figures(run, store.of_run(run_key))
