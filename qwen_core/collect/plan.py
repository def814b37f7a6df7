"""What goes, and why: everything that no rule keeps.

kept runs ─▶ their artifacts ─▶ all that these were made from ─▶ the parts that these list
  a run is kept while it runs, when it is young, when it is among the last of its recipe, when a model came of it
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from qwen_core.artifacts import Manifest, Store
from qwen_core.collect.inventory import READERS, Folder, Home, Inventory, commit_uri, listed_parts
from qwen_core.tracking.known import Known, KnownRun, KnownVersion
from qwen_core.tracking.lineage import ORIGINS, inputs_of

_SKETCHED = ("shingle_words", "num_buckets", "hashes_per_bucket", "seed")
DAY, HOUR = 86_400.0, 3_600.0
PARTED = ("ingest", "filter", "dedup")
"""Stages whose artifacts share parts."""


@dataclass(frozen=True)
class Policy:
    """What is kept.

    Attributes:
        keep_last: So many pipeline runs of each recipe, the newest.
        keep_days: Runs whose last stage is younger.
        min_age_hours: Nothing younger goes, whatever it is: an attempt may be writing it.
        stale_days: A run that MLflow takes for running, but without a sign of life for longer, is believed dead.
        drop_versions: Registered versions without an alias go with their runs.
        generations: How many runs back along what a run went on from (model, corpus, held-out set, tokenizer)
            artifacts are kept; `None` is all.
    """

    keep_last: int = 5
    keep_days: float = 30.0
    min_age_hours: float = 24.0
    stale_days: float = 7.0
    drop_versions: bool = False
    generations: int | None = None


@dataclass(frozen=True)
class Going:
    """Something that goes.

    Attributes:
        kind: `run`, `artifact`, `attempt`, `state`, `part`, `torn`, `version` or `mlflow_run`.
        uri: Where it lies, or its name.
        bytes: Its size.
        why: In words.
    """

    kind: str
    uri: str
    bytes: int
    why: str


@dataclass
class Plan:
    """All that goes, and what a sweep needs to know.

    Attributes:
        made_at: When the plan was made, as Unix time: what is newer is looked at again before data goes.
        going: What goes, in the order in which a sweep takes it.
        homes: Artifacts among it, by URI of their manifest.
        ancestors: Manifests among it from which a model that stays descends: their texts are kept.
        notes: What was spared, and why.
        kept_bytes: Size of what stays.
    """

    made_at: float
    going: list[Going] = field(default_factory=list)
    homes: dict[str, Home] = field(default_factory=dict)
    ancestors: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    kept_bytes: int = 0

    def of(self, *kinds: str) -> list[Going]:
        """Choose by kind.

        Args:
            *kinds: Which.

        Returns:
            What goes of these.
        """
        return [one for one in self.going if one.kind in kinds]

    @property
    def bytes(self) -> int:
        """Size of all that goes."""
        return sum(one.bytes for one in self.going)

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        going = [vars(one) for one in self.going]
        return {"bytes": self.bytes, "kept_bytes": self.kept_bytes, "notes": self.notes, "going": going}


class Planner:
    """Applies a policy to a store."""

    def __init__(self, store: Store, found: Inventory, known: Known, policy: Policy, now: float) -> None:
        """Take what is known.

        Args:
            store: Where artifacts lie.
            found: Its inventory.
            known: What MLflow knows.
            policy: What is kept.
            now: Unix time.
        """
        self._store, self._found, self._known = store, found, known
        self._policy, self._now = policy, now
        self._young = now - policy.min_age_hours * HOUR
        self._since = now - policy.keep_days * DAY

    def plan(self) -> Plan:
        """Decide.

        Returns:
            What goes.
        """
        plan = Plan(self._now)
        kept_runs, gone_runs = self._runs(plan)
        kept = self._kept_artifacts(kept_runs)
        versions = [one for one in self._known.versions if not self._stays(one)]
        plan.going += [
            Going("version", one.title, 0, f"no alias, and run '{one.run_key}' goes")
            for one in versions
            if one.run_key in gone_runs or not one.run_key
        ]
        plan.going += [Going("run", key, 0, why) for key, why in sorted(gone_runs.items())]
        self._plan_homes(plan, kept)
        self._plan_parts(plan, kept)
        plan.going += [Going("torn", one.uri, one.bytes, "a write was killed") for one in self._old(self._found.torn)]
        plan.going += self._mlflow_runs(gone_runs, kept)
        everything = [folder for home in self._found.homes.values() for folder in home.folders.values()]
        plan.kept_bytes = sum(folder.bytes for folder in [*everything, *self._found.parts.values()]) - plan.bytes
        return plan

    def _old(self, folders: Iterable[Folder]) -> Iterator[Folder]:
        yield from (folder for folder in folders if folder.newest < self._young)

    def _stays(self, version: KnownVersion) -> bool:
        return bool(version.aliases) or not self._policy.drop_versions

    def _runs(self, plan: Plan) -> tuple[set[str], dict[str, str]]:
        """Divide the pipeline runs into those that stay, and those that go with the reason."""
        by_recipe: dict[str, list[tuple[float, str]]] = defaultdict(list)
        registered = {one.run_key for one in self._known.versions if self._stays(one)}
        for key in set(self._found.runs) | set(self._known.runs):
            by_recipe[self._recipe_of(key)].append((self._age_of(key), key))
        kept: set[str] = set()
        gone: dict[str, str] = {}
        for recipe, runs in by_recipe.items():
            for place, (touched, key) in enumerate(sorted(runs, reverse=True)):
                is_new = place < self._policy.keep_last or touched >= min(self._young, self._since)
                if is_new or key in registered or self._is_running(key, plan):
                    kept.add(key)
                else:
                    days = (self._now - touched) / DAY
                    gone[key] = f"number {place + 1} of recipe '{recipe or '?'}', {days:.0f} days old"
        return kept, gone

    def _recipe_of(self, key: str) -> str:
        known = self._known.runs.get(key)
        return known[0].recipe if known else ""

    def _age_of(self, key: str) -> float:
        seen = [one.last_seen for one in self._known.runs.get(key, ())]
        return max([self._found.pointers.get(key, 0.0), *seen])

    def _is_running(self, key: str, plan: Plan) -> bool:
        running = [one for one in self._known.runs.get(key, ()) if one.is_running]
        if not running:
            return False
        if max(one.last_seen for one in running) >= self._now - self._policy.stale_days * DAY:
            return True
        plan.notes.append(f"run '{key}' runs, says MLflow, but gave no sign of life for long (--stale-days)")
        return False

    def running(self) -> list[KnownRun]:
        """List the stage runs that are believed to run.

        Returns:
            The runs.
        """
        since = self._now - self._policy.stale_days * DAY
        return [one for runs in self._known.runs.values() for one in runs if one.is_running and one.last_seen >= since]

    def _kept_artifacts(self, kept_runs: set[str]) -> set[str]:
        """Collect the artifacts that stay: of kept runs, models, stages that run, the young, and their ancestors."""
        starts = {uri for key in kept_runs for uri in self._found.runs.get(key, {}).values()}
        for version in self._known.versions:
            if self._stays(version):
                starts |= set(version.manifests) | set(self._found.runs.get(version.run_key, {}).values())
                starts |= {uri for uri in self._found.homes if version.fingerprint and version.fingerprint in uri}
        for run in self.running():
            starts |= {uri for uri, home in self._found.homes.items() if home.fingerprint == run.fingerprint}
        starts |= {uri for uri, home in self._found.homes.items() if home.written >= self._young}
        return self.ancestors_of(starts, self._policy.generations)

    def ancestors_of(self, starts: Iterable[str], generations: int | None) -> set[str]:
        """Walk back from artifacts.

        Args:
            starts: URIs of their manifests.
            generations: Earlier runs to go back along what each went on from; `None` is all.

        Returns:
            URIs, those of the starts too.
        """
        depth: dict[str, int] = {}
        waiting = [(uri, 0) for uri in starts]
        while waiting:
            uri, generation = waiting.pop()
            home = self._found.homes.get(uri)
            if home is None or depth.get(uri, generation + 1) <= generation:
                continue
            depth[uri] = generation
            if home.manifest is None:
                continue
            for name, source in inputs_of(home.manifest, self._store).items():
                further = generation + (name in ORIGINS)
                if generations is None or further <= generations:
                    waiting.append((source, further))
        return set(depth)

    def _plan_homes(self, plan: Plan, kept: set[str]) -> None:
        remembered = self.ancestors_of((uri for uri in kept), None)
        busy = {run.fingerprint for run in self.running()}
        for uri, home in self._found.homes.items():
            if home.manifest is not None and uri not in kept:
                size = home.data.bytes if home.data else 0
                plan.going.append(
                    Going("artifact", uri, size, f"no kept run or model needs it; made by '{_made_by(home)}'")
                )
                plan.homes[uri] = home
                if uri in remembered:
                    plan.ancestors.add(uri)
            if home.fingerprint not in busy:
                plan.going += self._leftovers(home, uri in kept)

    def _leftovers(self, home: Home, is_kept: bool) -> Iterator[Going]:
        """Find attempts and states that nobody will take up again."""
        for name, folder in home.leftovers():
            if name == "state" and home.manifest is None:
                if folder.newest < min(self._young, self._since):
                    yield Going("state", folder.uri, folder.bytes, "never finished, and nobody went on with it")
            elif folder.newest < self._young:
                why = (
                    "left behind by the attempt that was committed" if is_kept else "an attempt that was not committed"
                )
                yield Going("state" if name == "state" else "attempt", folder.uri, folder.bytes, why)

    def _plan_parts(self, plan: Plan, kept: set[str]) -> None:
        """Find the parts that no kept artifact lists; none while a stage runs that may take up any of them."""
        busy = sorted({run.stage for run in self.running()} & {*PARTED, "pipeline"} - {"pipeline"})
        manifests = {uri: home.manifest for uri, home in self._found.homes.items() if home.manifest is not None}
        needed = needed_parts((one for uri, one in manifests.items() if uri in kept), self._store)
        listed = needed_parts((one for uri, one in manifests.items() if uri not in kept), self._store)
        # What no artifact lists may be known to later runs all the same: it goes when it is as old as a run that goes
        old = {True: self._young, False: min(self._young, self._since)}
        parts = [one for one in self._found.parts.values() if one.uri not in needed]
        free = [one for one in parts if one.newest < old[one.uri in listed]]
        if busy and free:
            told = f"{', '.join(busy)} {'runs' if len(busy) == 1 else 'run'}"
            plan.notes.append(f"{len(free)} parts stay for now, for {told} and may take them up")
            return
        commits = [one for one in free if one.uri.endswith(".json")]
        others = [one for one in free if not one.uri.endswith(".json")]
        plan.going += [Going("part", one.uri, one.bytes, "no kept corpus lists it") for one in [*commits, *others]]

    def _mlflow_runs(self, gone: dict[str, str], kept: set[str]) -> Iterator[Going]:
        """Find MLflow's runs that go: not those that made an artifact which stays."""
        makers = {
            home.manifest.mlflow_run_id for uri, home in self._found.homes.items() if uri in kept and home.manifest
        }
        for key in gone:
            runs = self._known.runs.get(key, [])
            stages = [one for one in runs if one.stage != "pipeline"]
            going = [one for one in stages if one.run_id not in makers]
            if len(going) == len(stages):
                going += [one for one in runs if one.stage == "pipeline"]
            for one in going:
                yield Going("mlflow_run", one.run_id, 0, f"{one.stage} of run '{key}'")


def needed_parts(manifests: Iterable[Manifest | None], store: Store) -> set[str]:
    """Collect the files of the parts that artifacts list.

    Args:
        manifests: Of artifacts that stay.
        store: Where they lie.

    Returns:
        URIs of rows, of dropped documents and of commits; of sketches too, by which a later corpus is compared.
    """
    wanted = [manifest for manifest in manifests if manifest is not None]
    with ThreadPoolExecutor(READERS) as pool:
        lists = list(pool.map(lambda manifest: listed_parts(manifest, store), wanted))
        sketches = {uri for found in pool.map(lambda manifest: _sketches(manifest, store), wanted) for uri in found}
        texts = pool.map(store.read, sketches)
        rows = {str(json.loads(text)["uri"]) for text in texts if text is not None}
    parts = [part for found in lists for part in found]
    return {uri for part in parts for uri in (part.uri, part.dropped, commit_uri(part)) if uri} | sketches | rows


def _sketches(dedup: Manifest, store: Store) -> set[str]:
    """Name the commits of the sketches that `dedup` made of its input's parts; their fingerprint is `jobs.dedup`'s."""
    if dedup.stage != "dedup" or (text := store.read(dedup.inputs["filter"])) is None:
        return set()
    settings = {name: dedup.config["dedup"][name] for name in _SKETCHED if name in dedup.config["dedup"]}
    found = set()
    for part in listed_parts(Manifest.model_validate_json(text), store):
        told = {"stage": "dedup", "version": dedup.stage_version, "part": part.fingerprint, "sketch": settings}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
        found.add(f"{store.root}/dedup/parts/{digest}.json")
    return found


def _made_by(home: Home) -> str:
    return home.manifest.run_key if home.manifest else "?"
