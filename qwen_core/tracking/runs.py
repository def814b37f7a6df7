"""Runs: finding or making the parent of a pipeline run, and the handle with which a stage logs.

experiment <recipe name>
  └─ parent run  <run key>            tag qwen_core.run_key
       ├─ ingest                      tag qwen_core.stage, params, metrics by step, datasets, figures
       ├─ ...
       └─ release
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stages print their own links

import mlflow
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from qwen_core.artifacts import Manifest
from qwen_core.config import Recipe, dump_recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN_KEY_TAG = "qwen_core.run_key"
STAGE_TAG = "qwen_core.stage"
OUTPUT = "output"
FINGERPRINT_TAG = "qwen_core.fingerprint"
_MAX_PARAM_CHARS = 500  # MLflow's own limit is 6,000; longer texts belong into the recipe artifact
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # its page shows training runs, not traces
_SETTLE_SECONDS = 1.0
_COMPARED_RUNS = 4  # more columns than that no screen shows
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRun:
    """Handle of a stage's MLflow run; cheap to pickle, connects where it is used.

    Attributes:
        run_id: The stage's own run.
        parent_id: The pipeline run that it is nested in.
        experiment_id: The experiment of both.
        tracking_uri: MLflow server or database.
        stage: The stage's word.
    """

    run_id: str
    parent_id: str
    experiment_id: str
    tracking_uri: str
    stage: str

    @property
    def client(self) -> MlflowClient:
        """A client of the server that holds the run."""
        return MlflowClient(tracking_uri=self.tracking_uri)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log figures of one step; NaN and infinity are kept, for a diverged run must show it.

        Args:
            metrics: Values by name.
            step: Optimiser step, or 0 where there is none.
        """
        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=batch)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log a nested mapping as params with dotted names, also on the parent, where runs are compared.

        Args:
            params: Plain JSON; long values are cut. MLflow never lets a param change: what differs from an
                earlier attempt of the same run becomes a tag `changed.<name>`.
        """
        texts = {name: str(value)[:_MAX_PARAM_CHARS] for name, value in _flatten(params)}
        for run_id in (self.run_id, self.parent_id):
            known = self.client.get_run(run_id).data.params
            new = [Param(name, text) for name, text in texts.items() if name not in known]
            for start in range(0, len(new), 100):  # the server takes 100 params in one request
                self.client.log_batch(run_id, params=new[start : start + 100])
            changed = [RunTag(f"changed.{n}", t) for n, t in texts.items() if known.get(n, t) != t]
            if changed:
                self.client.log_batch(run_id, tags=changed[:100])

    def log_result(self, metrics: Mapping[str, float]) -> None:
        """Log a stage's closing figures, also on the parent under the stage's name.

        Args:
            metrics: Values by name.
        """
        self.log_metrics(metrics, step=0)
        now = int(time.time() * 1000)
        batch = [Metric(f"{self.stage}.{name}", float(value), now, 0) for name, value in metrics.items()]
        self.client.log_batch(self.parent_id, metrics=batch)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run.

        Args:
            tags: Values by name.
        """
        self.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_text(self, text: str, name: str) -> None:
        """Store a text as an artifact of the run.

        Args:
            text: The content.
            name: Path among the run's artifacts, such as `recipe.yaml`.
        """
        self.client.log_text(self.run_id, text, name)

    def log_figure(self, figure: Figure, name: str) -> None:
        """Store a matplotlib figure as an artifact of the run.

        Args:
            figure: The figure.
            name: Path among the run's artifacts, ending in `.png`.
        """
        self.client.log_figure(self.run_id, figure, name)

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Store a table as an artifact of the run; MLflow's page shows it with filters.

        Args:
            columns: Values by column.
            name: Stands as `tables/<name>.json` among the run's artifacts; an earlier one is replaced.
        """
        table = {"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
        path = f"tables/{name}.json"
        self.client.log_text(self.run_id, json.dumps(table, ensure_ascii=False), path)
        known = json.loads(self.client.get_run(self.run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        entry = {"path": path, "type": "table"}  # without it the page shows the bare JSON
        if entry not in known:
            self.set_tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps([*known, entry])})

    def log_dataset(self, manifest: Manifest, context: str) -> None:
        """Log an artifact as an input or output dataset, with its fingerprint as digest; outputs also on the parent.

        Args:
            manifest: The artifact.
            context: How it was used, such as `training`, or `OUTPUT`.
        """
        dataset = DatasetEntity(
            name=manifest.stage,
            digest=manifest.fingerprint,
            source_type="local" if "://" not in manifest.uri else manifest.uri.split("://")[0],
            source=f'{{"uri": "{manifest.uri}"}}',
            profile=f'{{"rows": {manifest.rows}, "bytes": {manifest.bytes}, "tokens": {manifest.tokens}}}',
        )
        tags = [InputTag("mlflow.data.context", context)]
        for run_id in (self.run_id, self.parent_id) if context == OUTPUT else (self.run_id,):
            self.client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])

    def comparison_path(self) -> str:
        """Address the page of MLflow's web UI that lays this pipeline run beside the ones before it.

        Returns:
            What follows `#` in the page's address; the charts of the experiment where there is nothing to compare.
        """
        pipelines = self.client.search_runs(
            [self.experiment_id],
            f"tags.`{STAGE_TAG}` = 'pipeline'",
            order_by=["attributes.start_time DESC"],
            max_results=_COMPARED_RUNS,
        )
        others = [run.info.run_id for run in pipelines if run.info.run_id != self.parent_id]
        if not others:
            return f"/experiments/{self.experiment_id}/runs?compareRunsMode=CHART"
        compared = {"runs": [self.parent_id, *others[: _COMPARED_RUNS - 1]], "experiments": [self.experiment_id]}
        return f"/compare-runs?{_query(compared)}"


def pipeline_run_id(tracking_uri: str, recipe: Recipe, run_key: str) -> str:
    """Find the parent run of a pipeline run, or make it.

    Args:
        tracking_uri: MLflow server or database.
        recipe: Its name is the experiment's; the resolved text is stored with the run.
        run_key: The pipeline run; also the parent's name.

    Returns:
        The parent's run id.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment_id = _experiment_id(client, recipe.name)
    found = _parents(client, experiment_id, run_key)
    if found:
        return found[0]
    tags = {RUN_KEY_TAG: run_key, STAGE_TAG: "pipeline", MLFLOW_RUN_NAME: run_key}
    own = str(client.create_run(experiment_id, tags=tags, run_name=run_key).info.run_id)
    # Stages that start together each make one, for MLflow knows no unique names. All of them wait until the others'
    # are to be seen, and take the same.
    time.sleep(_SETTLE_SECONDS)
    first = _parents(client, experiment_id, run_key)[0]
    if first == own:
        client.log_text(own, dump_recipe(recipe), "recipe.yaml")
    else:
        client.delete_run(own)
    return first


def _parents(client: MlflowClient, experiment_id: str, run_key: str) -> list[str]:
    """List the parent runs of a pipeline run, in an order that everyone sees alike."""
    found = client.search_runs(
        [experiment_id], f"tags.`{RUN_KEY_TAG}` = '{run_key}' and tags.`{STAGE_TAG}` = 'pipeline'"
    )
    return [str(run.info.run_id) for run in sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))]


@contextmanager
def begin_stage_run(
    tracking_uri: str, recipe: Recipe, run_key: str, stage: str, fingerprint: str
) -> Iterator[StageRun]:
    """Open the nested run of a stage; a rerun of an unfinished stage goes on in the same run.

    Args:
        tracking_uri: MLflow server or database.
        recipe: The whole recipe.
        run_key: The pipeline run.
        stage: The stage's word; also the run's name.
        fingerprint: Of the stage's artifact.

    Yields:
        The handle. The run ends as FINISHED, or as FAILED when an error passes through.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    parent = pipeline_run_id(tracking_uri, recipe, run_key)
    experiment_id = client.get_run(parent).info.experiment_id
    found = client.search_runs(
        [experiment_id],
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' and tags.`{STAGE_TAG}` = '{stage}' "
        f"and tags.`{FINGERPRINT_TAG}` = '{fingerprint}'",
        max_results=1,
    )
    if found:  # a new run at each resume would cut every curve into pieces
        run_id = found[0].info.run_id
        client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
    else:
        tags = {
            MLFLOW_PARENT_RUN_ID: parent,
            RUN_KEY_TAG: run_key,
            STAGE_TAG: stage,
            FINGERPRINT_TAG: fingerprint,
            MLFLOW_RUN_NAME: stage,
        }
        run_id = client.create_run(experiment_id, tags=tags, run_name=stage).info.run_id
    client.update_run(parent, status=RunStatus.to_string(RunStatus.RUNNING))
    ended = RunStatus.FAILED
    try:
        yield StageRun(run_id, parent, experiment_id, tracking_uri, stage)
        ended = RunStatus.FINISHED
    finally:
        # The parent too ends with each stage: nobody would end it for a pipeline that stops halfway.
        for ending in (run_id, parent):
            client.set_terminated(ending, RunStatus.to_string(ended))


def _experiment_id(client: MlflowClient, name: str) -> str:
    """Find or make an experiment; two stages may try at once."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        place = _artifact_location(client.tracking_uri)
        return str(client.create_experiment(name, artifact_location=place, tags=_EXPERIMENT_TAGS))
    except mlflow.MlflowException:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def _artifact_location(tracking_uri: str) -> str | None:
    """Put artifacts beside a bare database (MLflow would use the working directory); a server decides itself."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return (Path(tracking_uri.removeprefix("sqlite:///")).absolute().parent / "artifacts").as_uri()


def _query(values: Mapping[str, list[str]]) -> str:
    """Write lists of ids as MLflow's pages read them: each as JSON."""
    return urlencode({name: json.dumps(ids, separators=(",", ":")) for name, ids in values.items()})


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Turn a nested mapping into dotted names and leaf values."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
