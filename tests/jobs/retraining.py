"""Small stores and registries for tests of retraining: manifests without the work behind them."""

import json
from pathlib import Path

from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Outcome
from qwen_core.config import Recipe
from qwen_core.data.heldout import SCHEMA
from qwen_core.jobs.lineage import HELDOUT_FILE
from qwen_core.jobs.news import Asked
from qwen_core.jobs.parts import write_tables
from qwen_core.jobs.sources import document_sources
from qwen_core.parts import Part, write_part_list
from qwen_core.stages import STAGES
from qwen_core.tracking.registry import CHAMPION, Registered

NAME = "small"


def write_day(folder, day, lines=3):
    """Write a file of documents; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{day}.jsonl"
    rows = [{"text": f"The river of {day} flows past town number {number}."} for number in range(lines)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def asked(inputs, run_key, date=None, **retrain):
    """Ask for a retraining of documents."""
    recipe = Recipe(name=NAME, ingest={"inputs": [str(inputs)]}, release={"model_name": NAME}, retrain=retrain)
    overrides = tuple(f"retrain.{name}={value}" for name, value in retrain.items())
    return Asked(NAME, overrides, recipe, run_key, date)


def make(store, wanted, stages, base=None, details=None):
    """Commit stages of a run; `ingest` lists the files that the recipe names, and those of the base."""
    for name in stages:
        have = store.of_run(wanted.run_key)
        inputs = {one: have[one] for one in STAGES[name].inputs if one in have}
        attempt = store.begin(STAGES[name], wanted.recipe, wanted.run_key, inputs, {"run": wanted.run_key})
        if name == "ingest":
            write_part_list(store, attempt.data_uri, _parts(wanted, base))
        if name == "pack":
            write_tables([SCHEMA.empty_table()], _output(attempt, HELDOUT_FILE))
        manifest = store.commit(attempt, Outcome(rows=1, details=(details or {}).get(name, {})), 1.0, None)
        store.point(wanted.run_key, manifest)
    return store.of_run(wanted.run_key)


def register(uri, version_tags, champion=None):
    """Register versions with these tags; return them."""
    client = MlflowClient(uri)
    client.create_registered_model(NAME)
    found = []
    for number, tags in enumerate(version_tags, 1):
        client.create_model_version(NAME, source="file:///nowhere", tags=tags)
        found.append(Registered(NAME, str(number), tags))
    if champion:
        client.set_registered_model_alias(NAME, CHAMPION, champion)
    return found


def _parts(wanted, base):
    told = [[source.path, source.content_hash] for source in document_sources(wanted.recipe)]
    part = Part(fingerprint=f"p-{wanted.run_key}", uri="", rows=1, bytes=1, told={"files": told})
    return [*(base or []), part]


def _output(attempt, name):
    Path(attempt.data_uri).mkdir(parents=True, exist_ok=True)
    return f"{attempt.data_uri}/{name}"
