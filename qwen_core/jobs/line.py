"""The retrainings of one registered model, each with a record in the store: what the next one goes on from.

<root>/retrain/<model>/<run key>.json      written whole or not at all, before anything of the retraining is run

Records are numbered, for clocks may go back. Of what has become of a retraining its record tells nothing: the
manifests of its run do.
"""

from __future__ import annotations

import datetime
import re
import time
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict

from qwen_core.artifacts import Manifest, Store

_SETTLE_SECONDS = 1.0
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class Record(BaseModel):
    """A planned retraining.

    Attributes:
        number: Its place among the model's retrainings, from 1.
        run_key: The pipeline run.
        content: Hash of the corpus that it begins from and of the files that are new to it.
        planned_at: When it was last planned, in UTC.
        attempts: How often it was.
        result: What the plan answered: `recipe`, `overrides`, `reason` and more.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int
    run_key: str
    content: str
    planned_at: datetime.datetime
    attempts: int = 1
    result: dict[str, Any]


@dataclass(frozen=True)
class Standing:
    """How far a retraining has come.

    Attributes:
        record: The retraining.
        stages: Manifests that its run has, by stage word.
    """

    record: Record
    stages: dict[str, Manifest]

    @property
    def has_corpus(self) -> bool:
        """Whether its corpus is committed, so that the next one may go on from it."""
        return "ingest" in self.stages and "dedup" in self.stages

    @property
    def is_finished(self) -> bool:
        """Whether it was run to its end, whatever the gate decided."""
        return "release" in self.stages

    @property
    def last_seen(self) -> datetime.datetime:
        """When it was planned, or when its last stage was finished."""
        made = [datetime.datetime.fromisoformat(manifest.created_at) for manifest in self.stages.values()]
        return max([self.record.planned_at, *made])

    @property
    def next_stage(self) -> str:
        """The word of the last stage that is finished, for messages."""
        return f"'{list(self.stages)[-1]}' is its last finished stage" if self.stages else "no stage of it is finished"


class Line:
    """The retrainings of one registered model."""

    def __init__(self, store: Store, model_name: str) -> None:
        """Name the line.

        Args:
            store: Where its records lie.
            model_name: In MLflow's registry.
        """
        self._store = store
        self._home = f"{store.root}/retrain/{_UNSAFE.sub('_', model_name)}"

    def records(self) -> list[Record]:
        """Read all records.

        Returns:
            The newest first.
        """
        selector = pafs.FileSelector(self._store.path_of(self._home), allow_not_found=True)
        names = [info.base_name for info in self._store.filesystem.get_file_info(selector)]
        texts = [self._store.read(f"{self._home}/{name}") for name in sorted(names) if name.endswith(".json")]
        found = [Record.model_validate_json(text) for text in texts if text is not None]
        return sorted(found, key=lambda record: (-record.number, record.run_key))

    def find(self, run_key: str) -> Record | None:
        """Look up the record of a run.

        Args:
            run_key: The pipeline run.

        Returns:
            Its record, if it is a retraining.
        """
        text = self._store.read(self._uri(run_key))
        return Record.model_validate_json(text) if text is not None else None

    def standing(self, record: Record) -> Standing:
        """Tell how far a retraining has come.

        Args:
            record: The retraining.

        Returns:
            The record with the manifests of its run.
        """
        return Standing(record, self._store.of_run(record.run_key))

    def write(self, record: Record) -> None:
        """Write a record.

        Args:
            record: A new one, or one that takes the place of an earlier one of its run.
        """
        self._store.write(self._uri(record.run_key), record.model_dump_json(indent=1))

    def claim(self, record: Record) -> Record | None:
        """Write a new record, unless another planner takes the same number: then the lower run key has it.

        A store knows no locks. Both write, wait until the other's is to be seen, and see the same.

        Args:
            record: The new one.

        Returns:
            `None` where it stands, else the other one, and nothing is left of it.
        """
        self.write(record)
        time.sleep(_SETTLE_SECONDS)
        rivals = [one for one in self.records() if one.number == record.number]
        if rivals and rivals[0].run_key != record.run_key:
            self._store.filesystem.delete_file(self._store.path_of(self._uri(record.run_key)))
            return rivals[0]
        return None

    def _uri(self, run_key: str) -> str:
        return f"{self._home}/{_UNSAFE.sub('_', run_key)}.json"
