"""Finding a stage's run in MLflow, or making it: also later, and from another process, where MLflow was away.

experiment <recipe name>
  └─ parent run  <run key>            tag qwen_core.run_key
       └─ stage                       tag qwen_core.stage, qwen_core.fingerprint
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from qwen_core.tracking.rest import RestClient

    Client = MlflowClient | RestClient

PENDING = "pending-"
"""Begins the name of a run that MLflow has not given an id yet."""
RUN_KEY_TAG = "qwen_core.run_key"
STAGE_TAG = "qwen_core.stage"
FINGERPRINT_TAG = "qwen_core.fingerprint"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # its page shows training runs, not traces
# MLflow's own constants, written here because loading it takes seconds.
MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, _RUNNING = "mlflow.parentRunId", "mlflow.runName", "RUNNING"


@dataclass(frozen=True)
class Ids:
    """MLflow's ids of a stage's run.

    Attributes:
        run: The stage's own run.
        parent: The pipeline run that it is nested in.
        experiment: The experiment of both.
    """

    run: str
    parent: str
    experiment: str

    def of(self, place: str) -> str:
        """Choose one of the two runs.

        Args:
            place: `run` or `parent`.

        Returns:
            Its id.
        """
        return self.parent if place == "parent" else self.run


@dataclass(frozen=True)
class Opening:
    """All that it takes to find or make a stage's run.

    Attributes:
        experiment: The recipe's name.
        run_key: The pipeline run; also the parent's name.
        stage: The stage's word; also the run's name.
        fingerprint: Of the stage's artifact.
        recipe: The resolved recipe as YAML, stored with the parent.
        started_ms: When the stage began, in ms of Unix time.
    """

    experiment: str
    run_key: str
    stage: str
    fingerprint: str
    recipe: str
    started_ms: int

    @property
    def key(self) -> str:
        """Names the run where MLflow's id is not known; the same at each attempt."""
        told = "\0".join((self.experiment, self.run_key, self.stage, self.fingerprint))
        return PENDING + hashlib.sha256(told.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return asdict(self)


def now_ms() -> int:
    """Read the clock, in milliseconds of Unix time."""
    return int(time.time() * 1000)


def open_run(client: Client, opening: Opening, settle_seconds: float, *, is_late: bool = False) -> Ids:
    """Find a stage's run, or make it, and set it and its parent running.

    Args:
        client: Of the server.
        opening: Which run.
        settle_seconds: What others make at this moment is to be seen after so long.
        is_late: Others may make the same run at this moment, for MLflow is just back.

    Returns:
        The ids.
    """
    parent = parent_run(client, opening.experiment, opening.run_key, opening.recipe, settle_seconds, opening.started_ms)
    experiment_id = str(client.get_run(parent).info.experiment_id)
    query = (
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' and tags.`{STAGE_TAG}` = '{opening.stage}' "
        f"and tags.`{FINGERPRINT_TAG}` = '{opening.fingerprint}'"
    )
    tags = {
        MLFLOW_PARENT_RUN_ID: parent,
        RUN_KEY_TAG: opening.run_key,
        STAGE_TAG: opening.stage,
        FINGERPRINT_TAG: opening.fingerprint,
        MLFLOW_RUN_NAME: opening.stage,
    }

    def make() -> str:
        made = client.create_run(experiment_id, opening.started_ms, tags, opening.stage)
        return str(made.info.run_id)

    # a new run at each resume would cut every curve into pieces
    run_id, _ = _find_or_make(client, experiment_id, query, make, settle_seconds if is_late else 0)
    for one in (run_id, parent):
        client.update_run(one, status=_RUNNING)
    return Ids(run_id, parent, experiment_id)


def parent_run(
    client: Client,
    experiment: str,
    run_key: str,
    recipe: str,
    settle_seconds: float,
    started_ms: int | None = None,
) -> str:
    """Find the parent run of a pipeline run, or make it.

    Args:
        client: Of the server.
        experiment: The recipe's name.
        run_key: The pipeline run; also the parent's name.
        recipe: The resolved recipe, stored with the run.
        settle_seconds: What others make at this moment is to be seen after so long.
        started_ms: When it began; now by default.

    Returns:
        Its id.
    """
    experiment_id = experiment_of(client, experiment)
    query = f"tags.`{RUN_KEY_TAG}` = '{run_key}' and tags.`{STAGE_TAG}` = 'pipeline'"
    tags = {RUN_KEY_TAG: run_key, STAGE_TAG: "pipeline", MLFLOW_RUN_NAME: run_key}

    def make() -> str:
        return str(client.create_run(experiment_id, started_ms, tags, run_key).info.run_id)

    run_id, is_new = _find_or_make(client, experiment_id, query, make, settle_seconds)
    if is_new:
        client.log_text(run_id, recipe, "recipe.yaml")
    return run_id


def _find_or_make(
    client: Client, experiment_id: str, query: str, make: Callable[[], str], settle_seconds: float
) -> tuple[str, bool]:
    """Find the first run of a search, or make it; tell whether it was made."""
    found = _found(client, experiment_id, query)
    if found:
        return found[0], False
    own = make()
    if not settle_seconds:
        return own, True
    # Who starts together makes one each, for MLflow knows no unique names. All of them wait until the others' are to
    # be seen, and take the same.
    time.sleep(settle_seconds)
    first = (_found(client, experiment_id, query) or [own])[0]
    if first != own:
        client.delete_run(own)
    return first, first == own


def _found(client: Client, experiment_id: str, query: str) -> list[str]:
    """List runs in an order that everyone sees alike."""
    found = client.search_runs([experiment_id], query)
    return [str(run.info.run_id) for run in sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))]


def experiment_of(client: Client, name: str) -> str:
    """Find or make an experiment; two stages may try at once.

    Args:
        client: Of the server.
        name: Its name.

    Returns:
        Its id.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        place = _artifact_location(client.tracking_uri)
        return str(client.create_experiment(name, artifact_location=place, tags=_EXPERIMENT_TAGS))
    except Exception:  # each client has its own
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)


def _artifact_location(tracking_uri: str) -> str | None:
    """Put artifacts beside a bare database (MLflow would use the working directory); a server decides itself."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return (Path(tracking_uri.removeprefix("sqlite:///")).absolute().parent / "artifacts").as_uri()
