"""What a person calls a run or a model, and what it stands for: a run key, its manifests, its version.

run key | MLflow run id | NAME@alias | NAME/3 | NAME | models:/... | URI of a manifest ─▶ Side
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Manifest, Store
from qwen_core.errors import ArtifactError, InputError
from qwen_core.tracking.comparison import Side
from qwen_core.tracking.runs import RUN_KEY_TAG

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MODEL = re.compile(r"(?P<name>[^/@:]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


class Names:
    """Looks names up in a store, and in MLflow where the store knows them not."""

    def __init__(self, store: Store, tracking_uri: str) -> None:
        """Connect to nothing yet.

        Args:
            store: Where artifacts lie.
            tracking_uri: MLflow server or database.
        """
        self._store, self._tracking_uri = store, tracking_uri

    @functools.cached_property
    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self._tracking_uri)

    def side(self, named: str) -> Side:
        """Find a pipeline run.

        Args:
            named: See the module.

        Returns:
            The run with its manifests.

        Raises:
            InputError: Nothing has this name; what was looked for is told.
            ArtifactError: The run is known, but its artifacts are gone.
        """
        if named.endswith("manifest.json"):
            made = self._store.load(named)
            return Side(named, made.run_key, self._closure(made))
        have = self._store.of_run(named) if "/" not in named and "@" not in named else {}
        if have:
            return Side(named, named, have, *self._version_of(have))
        version = self.version(named)
        key = version.tags.get("run_key", "") if version is not None else self._key_of_run(named)
        if not key:
            raise InputError(
                f"'{named}' is no run key in {self._store.root}, no MLflow run of ours, and no registered model. See "
                f"the runs: qwen-core runs; a model is named NAME@champion or NAME/3"
            )
        have = self._store.of_run(key)
        if not have:
            raise ArtifactError(
                f"'{named}' is run '{key}', whose artifacts are not in {self._store.root}: deleted, or of another store"
            )
        known = (f"{version.name}/{version.version}", tuple(version.aliases)) if version else self._version_of(have)
        return Side(named, key, have, *known)

    def version(self, named: str) -> ModelVersion | None:
        """Find a registered version.

        Args:
            named: `NAME@alias`, `NAME/3`, or `NAME` for its newest version; `models:/` may stand before it.

        Returns:
            The version, or `None` where there is none.
        """
        name = named.removeprefix("models:/")
        found = _MODEL.fullmatch(name)
        try:
            if found and found["alias"]:
                return self._client.get_model_version_by_alias(found["name"], found["alias"])
            if found:
                return self._client.get_model_version(found["name"], found["version"])
            return self._newest(name)
        except MlflowException as error:
            if error.error_code in _MISSING:
                return None
            raise

    def _newest(self, name: str) -> ModelVersion | None:
        if "'" in name:
            return None
        versions = self._client.search_model_versions(f"name = '{name}'")
        newest = max(versions, key=lambda one: int(one.version), default=None)
        # A search does not tell aliases
        return self._client.get_model_version(name, newest.version) if newest else None

    def _key_of_run(self, named: str) -> str:
        if not _RUN_ID.fullmatch(named):
            return ""
        try:
            return str(self._client.get_run(named).data.tags.get(RUN_KEY_TAG, ""))
        except MlflowException as error:
            if error.error_code in _MISSING:
                return ""
            raise

    def _version_of(self, manifests: Mapping[str, Manifest]) -> tuple[str, tuple[str, ...]]:
        """Tell the version that a run's `release` made, with the aliases that it has now."""
        told: dict[str, Any] = manifests["release"].details if "release" in manifests else {}
        if not told.get("version"):
            return "", ()
        name = f"{told['name']}/{told['version']}"
        version = self.version(name)
        return name, tuple(version.aliases) if version else ()

    def _closure(self, made: Manifest) -> dict[str, Manifest]:
        """Collect what an artifact was made from."""
        found, waiting = {made.stage: made}, list(made.inputs.values())
        while waiting:
            manifest = self._store.load(waiting.pop())
            if manifest.stage not in found:
                found[manifest.stage] = manifest
                waiting += manifest.inputs.values()
        return found
