"""A run that is a folder: what a stage would log to MLflow lies there as files, and no MLflow is loaded.

<folder>/<stage>/params.json  metrics.json  tables/*.json  plots/*.png
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_core.artifacts import Manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEME = "folder:"
"""A tracking URI that begins so names a folder."""


class FolderRun:
    """Takes what `qwen_core.tracking.runs.StageRun` takes, of a stage that trains nothing."""

    def __init__(self, folder: Path, stage: str) -> None:
        """Name the place.

        Args:
            folder: Of all stages.
            stage: The stage's word.
        """
        self.folder, self.stage = folder / stage, stage
        self.run_id = self.experiment_id = None
        self.is_known = False  # to MLflow

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write the stage's section of the recipe.

        Args:
            params: Plain JSON.
        """
        self.log_text(json.dumps(params, ensure_ascii=False, indent=1), "params.json")

    def log_result(self, metrics: Mapping[str, float]) -> None:
        """Write the stage's closing figures.

        Args:
            metrics: Values by name.
        """
        self.log_text(json.dumps(dict(metrics), indent=1), "metrics.json")

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Pass over tags, which serve the search for runs.

        Args:
            tags: Values by name.
        """

    def log_dataset(self, manifest: Manifest, context: str) -> None:
        """Pass over datasets; the manifests tell of them.

        Args:
            manifest: The artifact.
            context: How it was used.
        """

    def log_text(self, text: str, name: str) -> None:
        """Write a text.

        Args:
            text: The content.
            name: Path below the run's folder.
        """
        self._place(name).write_text(text, encoding="utf-8")

    def log_figure(self, figure: Figure, name: str) -> None:
        """Draw a figure into a file.

        Args:
            figure: The figure.
            name: Path below the run's folder, ending in `.png`.
        """
        figure.savefig(self._place(name))

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Write a table as JSON, a list of rows.

        Args:
            columns: Values by column.
            name: Stands as `tables/<name>.json`.
        """
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.log_text(json.dumps(rows, ensure_ascii=False, indent=1), f"tables/{name}.json")

    def _place(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def begin_folder_run(tracking_uri: str, stage: str) -> Iterator[FolderRun]:
    """Open the folder of a stage.

    Args:
        tracking_uri: `folder:` and a local path.
        stage: The stage's word.

    Yields:
        The run.
    """
    yield FolderRun(Path(tracking_uri.removeprefix(SCHEME)), stage)
