"""Stores of a few small artifacts, made by the real store, and MLflow as clearing away sees it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from qwen_core.artifacts import Outcome, Store
from qwen_core.collect.inventory import listed_parts, take_inventory
from qwen_core.collect.plan import DAY, Planner, Policy
from qwen_core.collect.sweep import Sweep
from qwen_core.config import load_recipe
from qwen_core.parts import Part, PartStore, write_part_list
from qwen_core.stages import STAGES
from qwen_core.tracking.known import Known, KnownRun, KnownVersion

NOW = 30_000 * DAY  # far in the future: all that a test writes is old
OLD = NOW - 100 * DAY
EVERYTHING = Policy(keep_last=0)


class Made:
    """A store with pipeline runs of three stages: ingest (of shared parts), pack, pretrain."""

    def __init__(self, root):
        self.store, self.known = Store(root), Known()
        self.recipe = load_recipe("demo")
        self.dropped = []

    def part(self, fingerprint):
        places = PartStore(self.store.root, "ingest")
        uri = places.target(fingerprint)
        with self.store.filesystem.open_output_stream(self.store.path_of(uri)) as file:
            pq.write_table(pa.table({"text": [fingerprint]}), file)
        (size,) = self.store.sizes([uri])
        part = Part(fingerprint=fingerprint, uri=uri, rows=1, bytes=size, told={"files": [[f"/in/{fingerprint}", ""]]})
        places.commit(part)
        return part

    def run(self, key, parts, state="FINISHED", seen=OLD, stages=("ingest", "pack", "pretrain"), origin=None):
        """Make a pipeline run; `origin` is the fingerprint of a model that its pretraining goes on from."""
        inputs, made = {}, {}
        for name in stages:
            sources = {"key": key} | ({"init_from": origin} if origin and name == "pretrain" else {})
            stage = STAGES[name]
            attempt = self.store.begin(stage, self.recipe, key, inputs, sources)
            self.store.write(f"{attempt.data_uri}/model/weights", key * 100)
            if name == "ingest":
                write_part_list(self.store, attempt.data_uri, parts)
            manifest = self.store.commit(attempt, Outcome(rows=1), 1.0, f"{key}-{name}")
            self.store.point(key, manifest)
            inputs[name], made[name] = manifest, manifest
            is_running = state == "RUNNING"
            known = KnownRun(f"{key}-{name}", name, manifest.fingerprint, "demo", seen, is_running)
            self.known.runs[key].append(known)
        self.known.runs[key].append(KnownRun(f"{key}-parent", "pipeline", "", "demo", seen, state == "RUNNING"))
        return made

    def register(self, key, made, aliases=(), version="1"):
        model = made["pretrain"]
        self.known.versions.append(
            KnownVersion("demo", version, tuple(aliases), key, model.fingerprint, (model.uri,), None)
        )

    def plan(self, policy=EVERYTHING, now=NOW):
        return Planner(self.store, take_inventory(self.store), self.known, policy, now).plan()

    def sweep(self, plan, policy=EVERYTHING, archive=None, ask=None):
        return Sweep(self.store, plan, policy, ask or (lambda: self.known), self.dropped.append, archive)

    def keys(self):
        return sorted(take_inventory(self.store).runs)

    def left(self):
        found = take_inventory(self.store)
        return {(home.manifest.run_key, home.stage) for home in found.homes.values() if home.manifest}

    def parts_left(self):
        return sorted({uri.rsplit("/", 1)[1][0] for uri in take_inventory(self.store).parts})

    def check_whole(self):
        """No manifest points to missing data, no list to a missing part, no pointer of a whole run to nothing."""
        for uri, home in take_inventory(self.store).homes.items():
            manifest = home.manifest
            if manifest is None:
                continue
            assert None not in self.store.sizes([manifest.path(name) for name in manifest.files]), uri
            for part in listed_parts(manifest, self.store):
                assert self.store.sizes([part.uri]) == [part.bytes], part.uri


def kinds(plan):
    return sorted({one.kind for one in plan.going})


def text_of(path):
    return json.loads(path.read_text())
