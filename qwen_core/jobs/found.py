"""Finding a model by what a person calls it: a folder, a pipeline run, a manifest, or a name in MLflow's registry."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_core.artifacts import Manifest, Store, local_copy
from qwen_core.errors import ArtifactError
from qwen_core.jobs.folders import file_hashes, open_folder

ALIGNED_FIRST = ("dpo", "sft", "pretrain")
"""Stages that make a model, the last one first."""
_REGISTRY = "models:/"


@dataclass(frozen=True)
class FoundModel:
    """A model, on this machine or in the store.

    Attributes:
        uri: Hugging Face folder.
        title: What it is, for messages.
        manifest: Of the stage that made it; `None` for a folder of somebody else's.
    """

    uri: str
    title: str
    manifest: Manifest | None = None

    @property
    def folder(self) -> str:
        """The folder on this machine; of an object store it is brought when it is first asked for."""
        return local_copy(self.uri)

    def hashes(self) -> dict[str, str]:
        """Tell the model's part of a fingerprint.

        Returns:
            The fingerprint of its artifact, or hashes of its files.

        Raises:
            ArtifactError: The folder is not whole.
        """
        if self.manifest is not None:
            return {"init_from": self.manifest.fingerprint}
        return {f"init_from/{name}": digest for name, digest in file_hashes(open_folder(self.folder)).items()}


def find_model(
    named: str, store: Store, tracking_uri: str | None = None, stages: Sequence[str] = ALIGNED_FIRST
) -> FoundModel:
    """Find a model.

    Args:
        named: A folder; a run key; the URI of a manifest; or `models:/NAME@ALIAS`, `models:/NAME/VERSION`.
        store: Where artifacts lie.
        tracking_uri: MLflow server or database, for names in its registry.
        stages: Which of a run's models to take: the first that there is.

    Returns:
        The model.

    Raises:
        ArtifactError: There is none.
    """
    if named.startswith(_REGISTRY):
        return FoundModel(_registered(named, tracking_uri), named)
    if named.endswith("manifest.json"):
        return _made(store.load(named))
    place = Path(named).expanduser()
    if (place / "config.json").is_file():
        return FoundModel(str(place), str(place))
    have = store.of_run(named) if _is_key(named) else {}
    for stage in stages:
        if stage in have:
            return _made(have[stage])
    if have:
        raise ArtifactError(
            f"run '{named}' has no model of {' or '.join(stages)} yet, only {', '.join(have)}. "
            f"Run first: qwen-core stage {stages[0]} --run-key {named}"
        )
    raise ArtifactError(
        f"'{named}' is no model: neither a folder with a config.json, nor a pipeline run in {store.root}, nor the URI "
        f"of a manifest, nor models:/NAME@ALIAS"
    )


def _made(manifest: Manifest) -> FoundModel:
    if not any(name.startswith("model/") for name in manifest.files):
        raise ArtifactError(f"{manifest.uri} is a manifest of '{manifest.stage}', which makes no model")
    return FoundModel(manifest.path("model"), f"{manifest.stage} of run '{manifest.run_key}'", manifest)


def _is_key(named: str) -> bool:
    return "/" not in named and "://" not in named


@functools.cache
def _registered(named: str, tracking_uri: str | None) -> str:
    """Download a registered model, once: an alias that moves must not come between its hashes and its weights."""
    if tracking_uri is None:
        raise ArtifactError(f"{named} lies in MLflow's registry, and no tracking URI is known: give --tracking-uri")
    import mlflow  # takes seconds

    mlflow.set_tracking_uri(tracking_uri)
    try:
        place = Path(mlflow.artifacts.download_artifacts(artifact_uri=named))
    except Exception as error:  # each kind of store raises its own
        raise ArtifactError(f"{named} cannot be brought from MLflow: {error}") from error
    found = sorted(place.rglob("config.json"))
    if not found:
        raise ArtifactError(f"{named} holds no config.json: it was not registered by 'release'")
    return str(found[0].parent)
