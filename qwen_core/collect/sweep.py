"""Carrying out a plan so that it may be killed at any moment, and beside stages that run.

    versions ─▶ pointers ─▶ manifests (their texts in memory) ─▶ look again: has a stage taken one up meanwhile?
                                                                   ├─ yes ─▶ its manifest is written back
                                                                   └─ no ──▶ data, attempts, states
    commits of parts ─▶ look again ─▶ their files ─▶ MLflow's runs

A stage that begins while this goes on either finds no manifest, and makes the artifact anew, or has found it before it
went: then its pointer, or its run in MLflow, is there when this looks again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from qwen_core.artifacts import Store
from qwen_core.collect.archive import Archive
from qwen_core.collect.inventory import Home, Inventory, take_inventory
from qwen_core.collect.plan import PARTED, Going, Plan, Planner, Policy, needed_parts
from qwen_core.tracking.known import Known
from qwen_core.tracking.lineage import GONE

Tell = Callable[[str], None]
_LOOK_BACK_SECONDS = 120.0  # clocks of machines and stores differ


@dataclass
class Done:
    """What a sweep did.

    Attributes:
        bytes: That are free now.
        counts: Things that went, by kind.
        spared: What was taken up meanwhile, and stayed.
        notes: What is left to do by hand.
    """

    bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    spared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, one: Going) -> None:
        """Note that something went."""
        self.bytes += one.bytes
        self.counts[one.kind] = self.counts.get(one.kind, 0) + 1

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return vars(self)


class Sweep:
    """Carries out one plan."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        policy: Policy,
        ask: Callable[[], Known],
        drop_version: Callable[[str], None],
        archive: Archive | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            store: Where artifacts lie.
            plan: What goes.
            policy: That the plan was made by.
            ask: Asks MLflow what it knows now.
            drop_version: Deletes a registered version, such as `demo/3`.
            archive: Where everything is copied first.
        """
        self._store, self._plan, self._policy = store, plan, policy
        self._ask, self._drop_version, self._archive = ask, drop_version, archive
        self.done = Done()

    def run(self) -> Done:
        """Do all that concerns the store and the registry; MLflow's runs come after.

        Returns:
            What was done.
        """
        for one in self._plan.of("version"):
            self._drop_version(one.uri)
            self.done.count(one)
        self._archive_all()
        self._take_manifests()
        for one in self._plan.of("artifact", "attempt", "state"):
            self._take_data(one)
        self._take_parts()
        for one in self._plan.of("torn"):
            self.delete_file(one.uri)
            self.done.count(one)
        return self.done

    def delete_file(self, uri: str) -> None:
        """Delete a file; one that is gone already is fine.

        Args:
            uri: In the store.
        """
        with contextlib.suppress(FileNotFoundError):
            self._store.filesystem.delete_file(self._store.path_of(uri))

    def delete_folder(self, uri: str) -> None:
        """Delete a folder with all in it; one that is gone already is fine.

        Args:
            uri: In the store.
        """
        with contextlib.suppress(FileNotFoundError):
            self._store.delete(uri)

    def _archive_all(self) -> None:
        if self._archive is None:
            return
        parts = {one.uri for one in self._plan.of("part")}
        self._archive.add_parts(sorted(parts, key=lambda uri: uri.endswith(".json")))
        for home in self._plan.homes.values():
            self._archive.add_artifact(home)
        self._archive.add_runs([one.uri for one in self._plan.of("run")])

    def _take_manifests(self) -> None:
        """Take pointers and manifests away, and write back those that a stage has taken up meanwhile."""
        for one in self._plan.of("run"):
            self.delete_folder(f"{self._store.root}/runs/{one.uri}")
            self.done.count(one)
        texts = {uri: self._store.read(uri) for uri in self._plan.homes}
        for uri, text in texts.items():
            if text is not None and uri in self._plan.ancestors:
                self._store.write(f"{uri.rpartition('/')[0]}/{GONE}", text.decode())
            self.delete_file(uri)
        known = self._ask()  # first: a stage that has ended by now has written its pointer
        wanted = self._taken_up(take_inventory(self._store), known)
        for uri in wanted:
            text = texts.get(uri)
            if text is not None:
                self._store.write(uri, text.decode())
                self.done.spared.append(uri)
                del self._plan.homes[uri]

    def _taken_up(self, found: Inventory, known: Known) -> set[str]:
        """Find artifacts of the plan that a pointer names again, or that a stage which began since works on."""
        starts = {uri for stages in found.runs.values() for uri in stages.values() if uri in self._plan.homes}
        since = self._plan.made_at - _LOOK_BACK_SECONDS
        for runs in known.runs.values():
            busy = {one.fingerprint for one in runs if one.is_running and one.last_seen >= since}
            starts |= {uri for uri, home in self._plan.homes.items() if home.fingerprint in busy}
        whole = Inventory(homes={**found.homes, **self._plan.homes}, runs=found.runs)
        planner = Planner(self._store, whole, known, self._policy, time.time())
        return planner.ancestors_of(starts, None) & set(self._plan.homes)

    def _take_data(self, one: Going) -> None:
        if one.kind != "artifact":
            self.delete_folder(one.uri)
            self.done.count(one)
        elif one.uri in self._plan.homes:
            home: Home = self._plan.homes[one.uri]
            if home.data is not None:
                self.delete_folder(home.data.uri)
            self.done.count(one)

    def _take_parts(self) -> None:
        """Take commits away, look again, and only then the files: a stage that found a commit before has begun."""
        going = self._plan.of("part")
        commits = {one.uri: self._store.read(one.uri) for one in going if one.uri.endswith(".json")}
        for uri in commits:
            self.delete_file(uri)
        known = self._ask()
        since = self._plan.made_at - _LOOK_BACK_SECONDS
        running = [one for runs in known.runs.values() for one in runs if one.is_running and one.last_seen >= since]
        if any(one.stage in PARTED for one in running):
            for uri, text in commits.items():
                if text is not None:
                    self._store.write(uri, text.decode())
            self.done.notes.append(f"{len(going)} parts stay: a stage that may take them up began meanwhile")
            return
        homes = take_inventory(self._store).homes.values()
        needed = needed_parts((home.manifest for home in homes), self._store)
        for uri, text in commits.items():
            if uri in needed and text is not None:
                self._store.write(uri, text.decode())
        for one in going:
            if one.uri not in needed:
                self.delete_file(one.uri)
                self.done.count(one)
