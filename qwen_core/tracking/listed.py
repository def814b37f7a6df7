"""The pipeline runs that MLflow knows, with what the store has of each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Manifest, Store
from qwen_core.stages import STAGES
from qwen_core.tracking.runs import RUN_KEY_TAG, STAGE_TAG

_READERS = 16
_PAGE = 500


@dataclass(frozen=True)
class ListedRun:
    """A pipeline run.

    Attributes:
        run_key: Its key.
        recipe: Its name.
        state: `running`, `finished`, `failed` or `killed`.
        started_seconds: Unix time.
        ended_seconds: Unix time, where it has ended.
        stages: Words of the stages that are done.
        stages_in_all: How many there are.
        tokens: For training, as `pack` counted them; 0 before.
        bits_per_byte: Of the last model, on held-out text.
        version: Such as `demo/3`; empty where none was registered.
        aliases: Of that version now.
        mlflow_run_id: The parent run.
    """

    run_key: str
    recipe: str
    state: str
    started_seconds: float
    ended_seconds: float | None
    stages: list[str]
    stages_in_all: int
    tokens: int
    bits_per_byte: float | None
    version: str
    aliases: list[str]
    mlflow_run_id: str

    def to_json(self) -> dict[str, object]:
        """Give it as plain JSON."""
        return asdict(self)


def list_runs(
    store: Store, tracking_uri: str, recipe: str | None = None, state: str | None = None, limit: int = 20
) -> list[ListedRun]:
    """List pipeline runs, newest first.

    Args:
        store: Where their artifacts lie.
        tracking_uri: MLflow server or database.
        recipe: Only of this name.
        state: Only in this state.
        limit: So many at most.

    Returns:
        The runs.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    names = {e.experiment_id: e.name for e in client.search_experiments() if recipe in (None, e.name)}
    if not names:
        return []
    query = f"tags.`{STAGE_TAG}` = 'pipeline'"
    if state:
        query += f" and attributes.status = '{state.upper()}'"
    found = []
    for run in pipeline_runs(client, list(names), query):
        found.append(run)
        if len(found) == limit:
            break
    aliases = _aliases(client)
    with ThreadPoolExecutor(_READERS) as pool:
        have = pool.map(lambda run: store.of_run(run.data.tags[RUN_KEY_TAG]), found)
        return [
            _listed(run, names[run.info.experiment_id], manifests, aliases)
            for run, manifests in zip(found, have, strict=True)
        ]


def pipeline_runs(client: MlflowClient, experiments: list[str], query: str) -> Iterator[Run]:
    """Search runs, page by page.

    Args:
        client: Of the server.
        experiments: Their ids.
        query: Filter.

    Yields:
        Runs, newest first.
    """
    token = None
    while True:
        page = client.search_runs(
            experiments, query, max_results=_PAGE, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _aliases(client: MlflowClient) -> dict[str, list[str]]:
    """Map versions to their aliases: a registered model tells all of them at once."""
    found: dict[str, list[str]] = {}
    for model in client.search_registered_models():
        for alias, version in (model.aliases or {}).items():
            found.setdefault(f"{model.name}/{version}", []).append(alias)
    return found


def _listed(run: Run, recipe: str, manifests: dict[str, Manifest], aliases: dict[str, list[str]]) -> ListedRun:
    told = manifests["release"].details if "release" in manifests else {}
    version = f"{told['name']}/{told['version']}" if told.get("version") else ""
    end = run.info.end_time
    return ListedRun(
        run_key=run.data.tags[RUN_KEY_TAG],
        recipe=recipe,
        state=run.info.status.lower(),
        started_seconds=run.info.start_time / 1000,
        ended_seconds=end / 1000 if end and run.info.status != "RUNNING" else None,
        stages=list(manifests),
        stages_in_all=len(STAGES),
        tokens=manifests["pack"].tokens if "pack" in manifests else 0,
        bits_per_byte=_bits_per_byte(manifests),
        version=version,
        aliases=sorted(aliases.get(version, [])),
        mlflow_run_id=run.info.run_id,
    )


def _bits_per_byte(manifests: dict[str, Manifest]) -> float | None:
    if "evaluate" in manifests:
        figures = manifests["evaluate"].metrics
        for model in ("dpo", "sft", "pretrain"):
            if f"{model}.bits_per_byte" in figures:
                return figures[f"{model}.bits_per_byte"]
    return manifests["pretrain"].metrics.get("last_validation_bits_per_byte") if "pretrain" in manifests else None
