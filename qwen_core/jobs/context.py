"""What a job is given to do its stage's work. Light to import: Ray's workers load it with each job's functions."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_core import progress
from qwen_core.artifacts import Attempt, Manifest, Store
from qwen_core.config import Recipe
from qwen_core.errors import InputError
from qwen_core.stages import Stage
from qwen_core.tracking.folder import SCHEME, FolderRun

if TYPE_CHECKING:
    from qwen_core.tracking.runs import StageRun


@dataclass(frozen=True)
class Context:
    """All that a job needs to do its stage's work."""

    stage: Stage
    recipe: Recipe
    store: Store
    attempt: Attempt
    run: StageRun | FolderRun

    @property
    def mlflow_run(self) -> StageRun:
        """The run, of a stage that cannot do without MLflow.

        Raises:
            InputError: The tracking URI names a folder.
        """
        if isinstance(self.run, FolderRun):
            raise InputError(f"stage '{self.stage.name}' needs MLflow: {SCHEME} is no tracking URI for it")
        return self.run

    @property
    def section(self) -> Any:
        """The stage's own section of the recipe."""
        return getattr(self.recipe, self.stage.name)

    @property
    def inputs(self) -> dict[str, Manifest]:
        """Manifests of the input stages, by word."""
        return self.attempt.inputs

    def output(self, name: str) -> str:
        """Join a name to the folder of this attempt; the folder of the file is made.

        Args:
            name: Path below the attempt's folder.

        Returns:
            URI, or local path, to write to.
        """
        uri = f"{self.attempt.data_uri}/{name}"
        if "://" not in uri:
            os.makedirs(os.path.dirname(uri), exist_ok=True)  # noqa: PTH103,PTH120 - a URI elsewhere
        return uri

    def progress(self, done: int, total: int, unit: str, **metrics: float) -> None:
        """Print a progress line of this stage.

        Args:
            done: Units finished.
            total: Units in all, 0 where unknown.
            unit: Plural noun in snake_case.
            **metrics: Figures of the moment.
        """
        progress.report(self.stage.name, done, total, unit, **metrics)


def connect_ray() -> None:
    """Join the cluster that this job was submitted to, or start a Ray of its own on this machine.

    Without an address Ray would join any cluster that it finds on the machine, also somebody else's.
    """
    import ray
    import ray.data

    # Stages print their own progress; Ray Data's plan and bars of each pass would bury it, and so would notices that
    # there are none, and that Ray made itself a token.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for told in ("ray.data._internal.progress", "ray._private.authentication.authentication_token_setup"):
        logging.getLogger(told).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    dashboard = False if address == "local" else None  # nobody would look at a Ray of one's own
    ray.init(address=address, log_to_driver=True, logging_level=logging.WARNING, include_dashboard=dashboard)
