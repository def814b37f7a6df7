"""The handle with which a stage logs. MLflow that is away is no fault of a stage: what it does not take waits.

write ─▶ MLflow answers? done
           └─ no ─▶ outbox in the store ─▶ sent before the next write, at the stage's end, or by the next stage
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Manifest
from qwen_core.tracking import writes
from qwen_core.tracking.datasets import OUTPUT, SOURCE, dataset_of, source_datasets
from qwen_core.tracking.flat import flatten
from qwen_core.tracking.headlines import headline_metrics, headline_params
from qwen_core.tracking.opening import STAGE_TAG, Ids, Opening, open_run
from qwen_core.tracking.outbox import Outbox, Write, default_spool, in_short, is_final, logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATE_SETTLE_SECONDS = 1.0
_AGAIN_SECONDS = 10.0
_COMPARED_RUNS = 4  # more columns than that no screen shows


class Reach:
    """What this process knows of a run's MLflow: its ids, and when to try again after a failure."""

    def __init__(self) -> None:
        self.ids: Ids | None = None
        self.is_away = False
        self.try_at = 0.0
        self.started_seconds: float | None = None
        self.lock = threading.RLock()

    def fail(self) -> None:
        """Note that MLflow did not answer."""
        self.is_away, self.try_at = True, time.monotonic() + _AGAIN_SECONDS


_reaches: dict[tuple[str, str], Reach] = {}


class StageRun:
    """Handle of a stage's MLflow run; cheap to pickle, connects where it is used.

    Attributes:
        tracking_uri: MLflow server or database.
        stage: The stage's word.
        key: Names the run on this machine, also while MLflow does not know it.
    """

    def __init__(
        self,
        run_id: str,
        parent_id: str,
        experiment_id: str,
        tracking_uri: str,
        stage: str,
        *,
        opening: Opening | None = None,
        spool_uri: str | None = None,
    ) -> None:
        """Take the ids; connect to nothing.

        Args:
            run_id: The stage's own run; empty while MLflow does not know it.
            parent_id: The pipeline run that it is nested in.
            experiment_id: The experiment of both.
            tracking_uri: MLflow server or database.
            stage: The stage's word.
            opening: How to find or make the run.
            spool_uri: Where writes wait while MLflow is away; without it they raise.
        """
        self.tracking_uri, self.stage = tracking_uri, stage
        self._given = Ids(run_id, parent_id, experiment_id) if run_id else None
        self._opening = opening
        self.key = opening.key if opening else run_id
        self._outbox = Outbox(spool_uri, self.key) if spool_uri else None

    @property
    def run_id(self) -> str:
        """The stage's own run; a name that begins with `pending-` while MLflow has not answered yet."""
        ids = self._known_ids()
        return ids.run if ids else self.key

    @property
    def parent_id(self) -> str:
        """The pipeline run that it is nested in; empty while MLflow has not answered yet."""
        ids = self._known_ids()
        return ids.parent if ids else ""

    @property
    def experiment_id(self) -> str:
        """The experiment of both; empty while MLflow has not answered yet."""
        ids = self._known_ids()
        return ids.experiment if ids else ""

    @property
    def is_known(self) -> bool:
        """Whether MLflow knows the run."""
        return self._known_ids() is not None

    @property
    def client(self) -> MlflowClient:
        """A client of the server that holds the run."""
        return MlflowClient(tracking_uri=self.tracking_uri)

    @property
    def started_seconds(self) -> float:
        """When the run first began, as Unix time; steps of the machine's curves count from there."""
        reach, known = self.reach(), self._known_ids()
        if reach.started_seconds is None and known is not None:
            with contextlib.suppress(Exception):  # MLflow that is away: the next question may find it
                reach.started_seconds = float(self.client.get_run(known.run).info.start_time) / 1000
        if reach.started_seconds is not None:
            return reach.started_seconds
        return self._opening.started_ms / 1000 if self._opening else time.time()

    def resolve(self) -> str:
        """Tell the run's id for sure; raises where MLflow does not answer."""
        return self.ids().run

    def reach(self) -> Reach:
        """Find what this process knows of the run's MLflow."""
        return _reaches.setdefault((self.tracking_uri, self.key), Reach())

    def ids(self) -> Ids:
        """Tell MLflow's ids for sure; raises where it does not answer."""
        if self._given is not None:
            return self._given
        reach = self.reach()
        with reach.lock:
            if reach.ids is None:
                assert self._opening is not None
                reach.ids = open_run(self.client, self._opening, LATE_SETTLE_SECONDS, is_late=True)
            return reach.ids

    def _known_ids(self) -> Ids | None:
        """Tell the ids, asking a server that did not answer not too often."""
        if self._given is not None or self.reach().ids is not None:
            return self.ids()
        reach = self.reach()
        if time.monotonic() < reach.try_at:
            return None
        try:
            return self.ids()
        except Exception:
            reach.fail()
            return None

    def write(self, write: Write) -> None:
        """Have MLflow do something, now, or where it is away when it answers again.

        Args:
            write: As a function of `writes` gives it.
        """
        if self._outbox is None:
            writes.apply(self.client, self.ids(), write)
            return
        try:
            if self.reach().is_away and not self.send_waiting():
                self.keep(write)
                return
            writes.apply(self.client, self.ids(), write)
        except Exception as error:
            if is_final(error):  # nothing that is told to MLflow is worth a stage's work
                logger.warning("MLflow refuses %s of '%s': %s", write["kind"], self.stage, in_short(error))
                return
            if not self.reach().is_away:
                logger.warning(
                    "MLflow does not answer (%s): '%s' goes on, its records wait", in_short(error), self.stage
                )
            self.reach().fail()
            self.keep(write)

    def keep(self, write: Write) -> None:
        """Keep a write for later.

        Args:
            write: As a function of `writes` gives it.
        """
        given, opening = self._given, self._opening
        told = vars(given) if given else None
        outbox = self._outbox or Outbox(default_spool(), self.key)
        outbox.add({"ids": told, "opening": opening.to_json() if opening else None, "write": write})
        self.reach().is_away = True

    def send_waiting(self, is_urgent: bool = False) -> bool:
        """Send what waits of this run.

        Args:
            is_urgent: Try even where MLflow did not answer a moment ago.

        Returns:
            Whether nothing waits any more.
        """
        reach = self.reach()
        if self._outbox is None or (not is_urgent and time.monotonic() < reach.try_at):
            return self._outbox is None
        with reach.lock:
            try:
                count = self._outbox.send(lambda kept: writes.apply(self.client, self.ids(), kept["write"]))
            except Exception:
                reach.fail()
                return False
            if count:
                logger.warning("MLflow answers again: %d records of '%s' that waited are sent", count, self.stage)
            reach.is_away = False
            return True

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log figures of one step; NaN and infinity are kept, for a diverged run must show it.

        Args:
            metrics: Values by name.
            step: Optimiser step, or 0 where there is none.
        """
        self.write(writes.metrics(metrics, step))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log a nested mapping as params with dotted names; the parent, where runs are compared, gets what matters.

        Args:
            params: Plain JSON; long values are cut. MLflow never lets a param change: what differs from an
                earlier attempt of the same run becomes a tag `changed.<name>`.
        """
        flat = dict(flatten(params))
        self.write(writes.params(flat))
        self.write(writes.params(headline_params(flat), "parent"))

    def log_result(self, metrics: Mapping[str, float]) -> None:
        """Log a stage's closing figures; those that tell runs apart also on the parent, see `headlines`.

        Args:
            metrics: Values by name.
        """
        self.write(writes.metrics(metrics))
        headlines = headline_metrics(self.stage, metrics)
        if headlines:
            self.write(writes.metrics(headlines, on="parent"))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run.

        Args:
            tags: Values by name.
        """
        self.write(writes.tags(tags))

    def log_text(self, text: str, name: str) -> None:
        """Store a text as an artifact of the run.

        Args:
            text: The content.
            name: Path among the run's artifacts, such as `recipe.yaml`.
        """
        self.write(writes.text(text, name))

    def log_figure(self, figure: Figure, name: str, on: str = "run") -> None:
        """Store a matplotlib figure as an artifact of the run.

        Args:
            figure: The figure.
            name: Path among the run's artifacts, ending in `.png`.
            on: `run`, or `parent`.
        """
        file = io.BytesIO()
        figure.savefig(file, format="png")
        self.write(writes.raw(file.getvalue(), name, on))

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str, on: str = "run") -> None:
        """Store a table as an artifact of the run; MLflow's page shows it with filters.

        Args:
            columns: Values by column.
            name: Stands as `tables/<name>.json` among the run's artifacts; an earlier one is replaced.
            on: `run`, or `parent`.
        """
        self.write(writes.table(columns, name, on))

    def log_dataset(self, manifest: Manifest, context: str) -> None:
        """Log an artifact as an input or output dataset, with its fingerprint as digest; outputs also on the parent.

        What a stage read from outside of the store is logged with its output, as inputs in the context `source`.

        Args:
            manifest: The artifact.
            context: How it was used, such as `training`, or `OUTPUT`.
        """
        found = [dataset_of(manifest)]
        self.write(writes.datasets(found, context))
        if context == OUTPUT:
            self.write(writes.datasets(found, context, "parent"))
            sources = source_datasets(manifest)
            if sources:
                self.write(writes.datasets(sources, SOURCE))

    def comparison_path(self) -> str:
        """Address the page of MLflow's web UI that lays this pipeline run beside the ones before it.

        Returns:
            What follows `#` in the page's address; the charts of the experiment where there is nothing to compare.
        """
        ids = self.ids()
        pipelines = self.client.search_runs(
            [ids.experiment],
            f"tags.`{STAGE_TAG}` = 'pipeline'",
            order_by=["attributes.start_time DESC"],
            max_results=_COMPARED_RUNS,
        )
        others = [run.info.run_id for run in pipelines if run.info.run_id != ids.parent]
        if not others:
            return f"/experiments/{ids.experiment}/runs?compareRunsMode=CHART"
        compared = {"runs": [ids.parent, *others[: _COMPARED_RUNS - 1]], "experiments": [ids.experiment]}
        return f"/compare-runs?{_query(compared)}"


def _query(values: Mapping[str, list[str]]) -> str:
    """Write lists of ids as MLflow's pages read them: each as JSON."""
    return urlencode({name: json.dumps(ids, separators=(",", ":")) for name, ids in values.items()})
