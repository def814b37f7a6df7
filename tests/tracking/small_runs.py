"""Two pipeline runs of five stages, small but made by the real store, and told to a real MLflow."""

import json

from qwen_core.artifacts import Outcome, Store
from qwen_core.config import load_recipe
from qwen_core.parts import Part, PartStore, write_part_list
from qwen_core.stages import STAGES
from qwen_core.tracking.runs import begin_stage_run

MONDAY = {"documents": (90, 10), "tokens": {"en": 4000, "zh": 1000}, "bits": (1.2, 1.1, 1.3), "accuracy": 0.6}
TUESDAY = {"documents": (120, 30), "tokens": {"en": 4000, "zh": 3000}, "bits": (1.14, 1.12, 1.16), "accuracy": 0.66}


def outcomes(told, version):
    kept, dropped = told["documents"]
    english, chinese = kept // 2, kept - kept // 2
    funnel = [["web", "en", "", english, english * 10], ["web", "zh", "", chinese, chinese * 10]]
    funnel += [["web", "en", "too_few_words", dropped, dropped]]
    whole, en, zh = told["bits"]
    mix = [{"language": name, "source": "web", "tokens": count} for name, count in told["tokens"].items()]
    figures = {"dpo.bits_per_byte": whole, "dpo.preference_accuracy": told["accuracy"], "pretrain.bits_per_byte": 1.5}
    figures |= {"dpo.bits_per_byte/language/en": en, "dpo.bits_per_byte/language/zh": zh}
    release = {"name": "small", "version": version, "decision": "promoted", "reason": "better"}
    return {
        "ingest": Outcome(kept, drops={"too_few_words": dropped}, details={"funnel": funnel}, metrics={"files": 2.0}),
        "pack": Outcome(9, sum(told["tokens"].values()), details={"mix": mix}, metrics={"bytes_per_token": 3.5}),
        "pretrain": Outcome(10, metrics={"steps": 10.0, "last_validation_loss": whole * 2}),
        "evaluate": Outcome(3, metrics=figures),
        "release": Outcome(1, details=release),
    }


def history(bits):
    events = [{"step": step, "validation/bits_per_byte": bits + 2 - step / 5} for step in (0, 5, 10)]
    return "".join(json.dumps(event) + "\n" for event in events)


def make_run(store, key, told, files, overrides=(), version="1"):
    """Commit the artifacts of a run, and point to them."""
    recipe, made = load_recipe("demo", list(overrides)), {}
    for name, outcome in outcomes(told, version).items():
        sources = {"files": ",".join(files)} if name == "ingest" else {}
        attempt = store.begin(STAGES[name], recipe, key, dict(made), sources | {"key": key})
        if name == "ingest":
            part = Part(fingerprint=key[0] * 16, uri="", rows=1, bytes=1, told={"files": [[f, f] for f in files]})
            part = part.model_copy(update={"uri": PartStore(store.root, name).target(part.fingerprint)})
            store.write(part.uri, "x")
            PartStore(store.root, name).commit(part)
            write_part_list(store, attempt.data_uri, [part])
        if name == "pretrain":
            store.write(f"{attempt.data_uri}/history.jsonl", history(told["bits"][0]))
        made[name] = store.commit(attempt, outcome, 2.0, None)
        store.point(key, made[name])
    return recipe, made


def make_both(root):
    store = Store(str(root))
    monday = make_run(store, "monday", MONDAY, ["/in/a.txt", "/in/b.txt"])
    tuesday = make_run(
        store, "tuesday", TUESDAY, ["/in/b.txt", "/in/c.txt"], ["pretrain.learning_rate=0.002"], version="2"
    )
    return store, monday, tuesday


def register(client, store, key, made, version):
    if version == "1":
        client.create_registered_model("small")
    tags = {"run_key": key, "model_fingerprint": made["pretrain"].fingerprint, "manifest": made["pretrain"].uri}
    client.create_model_version("small", f"{store.root}/m", tags=tags)


def tell(uri, store, key, recipe, made):
    """Tell MLflow of a run as its last stage does."""
    with begin_stage_run(uri, recipe, key, "release", made["release"].fingerprint, f"{store.root}/spool") as run:
        tree = recipe.model_dump(mode="json")
        run.log_params({"seed": recipe.seed, "pretrain": tree["pretrain"]})
        for name, manifest in made.items():
            run.log_dataset(manifest, "output" if name == "release" else "input")
    return run
