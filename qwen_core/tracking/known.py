"""What MLflow knows that clearing away must respect: runs and whether they run, registered versions and aliases."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from qwen_core.tracking.opening import FINGERPRINT_TAG, RUN_KEY_TAG, STAGE_TAG

_PAGE = 500
_MANIFEST_TAGS = ("manifest", "heldout")


@dataclass(frozen=True)
class KnownRun:
    """A run of ours.

    Attributes:
        run_id: MLflow's id.
        stage: The stage's word, or `pipeline` of a parent.
        fingerprint: Of the stage's artifact.
        recipe: Name of the experiment.
        last_seen: Unix time of its beginning, its end, or the last figure that it logged: whichever is latest.
        is_running: Whether MLflow takes it for running.
    """

    run_id: str
    stage: str
    fingerprint: str
    recipe: str
    last_seen: float
    is_running: bool


@dataclass(frozen=True)
class KnownVersion:
    """A registered version.

    Attributes:
        name: The registered model.
        version: Its number.
        aliases: That it has now.
        run_key: The pipeline run that it came of.
        fingerprint: Of the model's artifact.
        manifests: URIs of manifests that its tags name.
        model_id: MLflow's logged model.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    run_key: str
    fingerprint: str
    manifests: tuple[str, ...]
    model_id: str | None

    @property
    def title(self) -> str:
        """Name and number."""
        return f"{self.name}/{self.version}"


@dataclass
class Known:
    """All runs by run key, and all versions."""

    runs: dict[str, list[KnownRun]] = field(default_factory=lambda: defaultdict(list))
    versions: list[KnownVersion] = field(default_factory=list)


def what_is_known(tracking_uri: str) -> Known:
    """Ask MLflow.

    Args:
        tracking_uri: MLflow server or database.

    Returns:
        Runs and versions.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    known = Known()
    names = {one.experiment_id: one.name for one in client.search_experiments(view_type=ViewType.ALL)}
    token = None
    while names:
        page = client.search_runs(
            list(names), f"tags.`{STAGE_TAG}` != ''", ViewType.ACTIVE_ONLY, _PAGE, page_token=token
        )
        for run in page:
            key = run.data.tags.get(RUN_KEY_TAG)
            if key:
                known.runs[key].append(_run(run, names[run.info.experiment_id]))
        token = page.token
        if not token:
            break
    known.versions = _versions(client)
    return known


def _run(run: Run, recipe: str) -> KnownRun:
    tags = run.data.tags
    told = [run.info.start_time, run.info.end_time or 0, *(one.timestamp for one in run.data._metric_objs)]
    return KnownRun(
        run_id=run.info.run_id,
        stage=tags.get(STAGE_TAG, ""),
        fingerprint=tags.get(FINGERPRINT_TAG, ""),
        recipe=recipe,
        last_seen=max(told) / 1000,
        is_running=run.info.status == "RUNNING",
    )


def _versions(client: MlflowClient) -> list[KnownVersion]:
    aliases: dict[tuple[str, str], list[str]] = defaultdict(list)
    token = None
    while True:
        models = client.search_registered_models(page_token=token)
        for model in models:
            for alias, version in (model.aliases or {}).items():
                aliases[model.name, str(version)].append(alias)
        token = models.token
        if not token:
            break
    found: list[KnownVersion] = []
    while True:
        page = client.search_model_versions(page_token=token)
        for one in page:
            manifests = tuple(one.tags[name] for name in _MANIFEST_TAGS if one.tags.get(name, "").endswith(".json"))
            found.append(
                KnownVersion(
                    one.name,
                    str(one.version),
                    tuple(sorted(aliases[one.name, str(one.version)])),
                    one.tags.get("run_key", ""),
                    one.tags.get("model_fingerprint", ""),
                    manifests,
                    one.model_id or None,
                )
            )
        token = page.token
        if not token:
            return found
