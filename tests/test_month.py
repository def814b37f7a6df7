"""A month of daily retraining, with small real texts: what comes each day, what is skipped, what the registry tells.

The corpus stages run in this process on one Ray, the planning job each day; training on three days, of a very small
model for very few steps.
"""

import datetime
import gzip
import itertools
import json
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from qwen_core.artifacts import Store
from qwen_core.config import load_recipe
from qwen_core.errors import NothingToDoError
from qwen_core.jobs import line
from qwen_core.jobs.news import Asked
from qwen_core.jobs.planning import plan
from qwen_core.jobs.promote import rolled_back
from qwen_core.jobs.runner import run_stage
from qwen_core.parts import parts_of, read_rows
from qwen_core.stages import STAGES
from qwen_core.tracking.promotion import history
from qwen_core.tracking.registry import find_champion, versions

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.endurance, pytest.mark.timeout(1800)]

TINY = str(Path(__file__).parent / "recipes" / "tiny.yaml")
CORPUS = ("ingest", "classifiers", "filter", "dedup")
DAYS, TRAINED, EMPTY, BAD, OUTAGE = 30, (1, 16, 30), (5, 6, 17), (8, 19), 14
SETTINGS = (
    "classifiers.train=[]",
    "dedup.keep=first",
    "pack.validation_ratio=0.1",
    "parallel.num_workers=1",
    "pretrain.max_steps=4",
    "sft.max_steps=2",
    "dpo.max_steps=2",
    "pretrain.min_validation_points=2",
    "sft.min_validation_points=2",
    "dpo.min_validation_points=2",
    "instruct.max_seq_len=128",
    "preference.max_seq_len=128",
    "evaluate.max_new_tokens=1",
    "release.max_bits_per_byte_regression_ratio=1.0",
    "release.max_language_regression_ratio=1.0",
    "release.max_preference_accuracy_drop=1.0",
    "release.max_answer_loss_regression_ratio=1.0",
)


class Month:
    """The days, and what became of each."""

    def __init__(self, place, tracking_uri):
        self.folder, self.store, self.uri = place / "days", Store(str(place / "store")), tracking_uri
        self.folder.mkdir()
        self.skipped, self.plans, self.figures = {}, {}, {}
        self.overrides = (*SETTINGS, f"ingest.inputs=[{self.folder}]")

    def plan(self, day):
        """Ask what is to be done; the time is that day's."""
        recipe = load_recipe(TINY, self.overrides)
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=day)
        asked = Asked(TINY, self.overrides, recipe, f"day-{day:02d}")
        return plan(asked, self.store, self.uri, now).result

    def run(self, day):
        """Retrain, if there is anything to do; train on some days only."""
        try:
            result = self.plans[day] = self.plan(day)
        except NothingToDoError as reason:
            self.skipped[day] = str(reason)
            return
        recipe = load_recipe(result["recipe"], result["overrides"])
        log = str(self.store.root).replace("store", "log")
        for name in STAGES if day in TRAINED else CORPUS:
            uri = self.uri if day in TRAINED and name not in CORPUS else f"folder:{log}/{day}"
            run_stage(name, recipe, result["run_key"], self.store, uri)
        if day not in TRAINED:  # for time's sake: as if it was trained, and nothing came of it
            self.store.point(result["run_key"], self.store.of_run("day-01")["release"])
        self.figures[day] = self.count()

    def corpus(self, run_key):
        """Ids and texts of a run's corpus, in its order."""
        parts = [part for part in parts_of(self.store.of_run(run_key)["dedup"]) if part.rows]
        table = pa.concat_tables([read_rows(part.uri, ["id", "text"]) for part in parts])
        return list(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))

    def count(self):
        """Files and bytes of the parts in the store, by stage: what grows with the corpus."""
        found = {}
        for stage in ("ingest", "filter", "dedup"):
            files = list(Path(self.store.root, stage, "parts").glob("*"))
            found[stage] = (len(files), sum(file.stat().st_size for file in files))
        return found


def what_comes():
    """Give the bundled texts out: many on the first day, then some each; later also what was there, or nearly so."""
    rows = []
    for name in ("documents_en.jsonl", "documents_zh.jsonl"):
        text = (resources.files("qwen_core.demo") / name).read_text(encoding="utf-8")
        rows.append([json.loads(each)["text"] for each in text.splitlines()])
    texts = [text for pair in zip(*rows, strict=False) for text in pair]
    first, rest = texts[:160], texts[160:]
    busy = [day for day in range(2, DAYS + 1) if day not in EMPTY]
    shares = {1: first}
    for number, day in enumerate(busy):
        shares[day] = [first[number], f"{first[number + 1]} One more.", *rest[number :: len(busy)]]
    for day, mine in shares.items():
        yield day, "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in mine).encode()


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    """All thirty days."""
    place = tmp_path_factory.mktemp("month")
    found = Month(place, f"sqlite:///{place}/mlflow.db")
    settle, line._SETTLE_SECONDS = line._SETTLE_SECONDS, 0.0
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        coming = dict(what_comes())
        for day in range(1, DAYS + 1):
            if day in coming:
                (found.folder / f"{day:02d}.jsonl").write_bytes(coming[day])
            if day in BAD:  # a file that is cut off, and one that is no text at all
                cut = gzip.compress(coming[day])[:-20]
                (found.folder / f"{day:02d}-cut.jsonl.gz").write_bytes(cut)
                (found.folder / f"{day:02d}-odd.jsonl").write_bytes(bytes([day]) * 4 + bytes(range(256)) * 4)
            if day != OUTAGE:
                found.run(day)
        yield found
    finally:
        line._SETTLE_SECONDS = settle
        ray.shutdown()


def test_days_without_news_are_skipped_with_the_reason_and_an_outage_is_caught_up(month):
    assert set(month.skipped) == set(EMPTY)
    assert all(reason.startswith("nothing new: ") for reason in month.skipped.values())
    news = {day: result["new_files"] for day, result in month.plans.items()}
    assert news.pop(OUTAGE + 1) == 2 and OUTAGE not in news
    assert {day for day, files in news.items() if files == 3} == set(BAD)
    assert all(files == 1 for day, files in news.items() if day not in BAD)


def test_each_day_reads_its_new_files_alone(month):
    for day, result in month.plans.items():
        told = month.store.of_run(result["run_key"])["ingest"].metrics
        assert told["files"] - told["files_known"] == result["new_files"], day
        assert told["raw_bytes"] == result["new_bytes"], day


def test_bad_files_are_counted_and_stop_nothing(month):
    last = month.store.of_run(f"day-{DAYS}")["ingest"]
    faulty = {Path(fault["path"]).name for fault in last.details["faults"]}
    assert {f"{day:02d}-cut.jsonl.gz" for day in BAD} <= faulty, last.details["faults"]
    assert {f"{day:02d}-odd.jsonl" for day in BAD} <= faulty


def test_the_corpus_equals_one_that_is_built_at_once(month):
    """The same documents with the same texts in the same order, though it lies in other parts.

    So it is with dedup.keep=best too; but then a better copy takes the place of an earlier document, and the part that
    it leaves is written anew.
    """
    recipe = load_recipe(TINY, month.overrides)
    log = str(month.store.root).replace("store", "log")
    for name in CORPUS:
        run_stage(name, recipe, "at-once", month.store, f"folder:{log}/at-once")
    assert month.corpus("at-once") == month.corpus(f"day-{DAYS}")
    at_once, grown = (month.store.of_run(key) for key in ("at-once", f"day-{DAYS}"))
    for stage in ("ingest", "filter", "dedup"):
        assert at_once[stage].rows == grown[stage].rows and at_once[stage].drops == grown[stage].drops, stage
    drops = grown["dedup"].drops
    assert drops["exact_duplicate"] >= 20 and drops["near_duplicate"] >= 10


def test_a_corpus_only_grows(month):
    before = {}
    for result in month.plans.values():
        now = dict(month.corpus(result["run_key"]))
        assert before.items() <= now.items()
        before = now


def test_state_grows_by_what_is_new(month):
    """Each day adds one part to each stage, with its sketches, and writes no earlier part anew."""
    days = sorted(month.figures)
    for before, after in itertools.pairwise(days):
        rise = {
            stage: tuple(b - a for a, b in zip(month.figures[before][stage], month.figures[after][stage], strict=True))
            for stage in month.figures[after]
        }
        raw = month.plans[after]["new_bytes"]
        for stage, (files, size) in rise.items():
            # rows, what was dropped, commit; dedup also has sketches, of 20 bands of 8 bytes and more each
            assert 0 < files <= (3 if stage != "dedup" else 5), (after, stage, files)
            assert size < 40_000 + 3 * raw, (after, stage, size)
    parts = parts_of(month.store.of_run(f"day-{DAYS}")["dedup"])
    assert len(parts) == len(month.plans)


def test_held_out_documents_are_the_same_all_month_and_never_trained_on(month):
    digests = {month.store.of_run(f"day-{day:02d}")["pack"].details["heldout_digest"] for day in TRAINED}
    assert len(digests) == 1
    last = month.store.of_run(f"day-{DAYS}")
    assert last["pack"].details["heldout_from"] == last["pack"].config["pack"]["heldout_from"]


def test_each_model_goes_on_from_the_champion_with_its_tokenizer(month):
    first, *others = (month.store.of_run(f"day-{day:02d}") for day in TRAINED)
    assert not first["pretrain"].details["is_continued"] and "decision" not in first["tokenizer"].details
    vocabulary = Path(first["tokenizer"].path("tokenizer/tokenizer.json")).read_bytes()
    for made in others:
        assert made["tokenizer"].details["kept"] and "kept" in made["tokenizer"].details["decision"]
        assert Path(made["tokenizer"].path("tokenizer/tokenizer.json")).read_bytes() == vocabulary
        assert made["tokenizer"].details["baseline"]["trained_by"] == first["tokenizer"].uri
        assert made["pretrain"].details["is_continued"] and made["pretrain"].metrics["steps"] == 1
        bits = [check for check in made["release"].details["checks"] if check["name"] == "bits_per_byte"]
        assert bits[0]["champion"] is not None and bits[0]["verdict"] == "passed"


def test_the_registry_tells_the_story_and_the_way_back(month):
    told = history(month.uri, "tiny")
    assert [(move.version, move.previous) for move in told] == [("1", ""), ("2", "1"), ("3", "2")]
    assert [move.by for move in told] == [f"release of run day-{day:02d}" for day in TRAINED]
    newest = versions(month.uri, "tiny")[0]
    assert newest.tags["run_key"] == f"day-{DAYS}" and newest.tags["gate"] == "passed"
    card = Path(month.store.of_run(f"day-{DAYS}")["release"].path("model_card.md")).read_text()
    assert "goes on from pretrain of run 'day-16' for 1 steps" in card and "| champion 2 |" in card
    assert rolled_back(month.uri, "tiny", None, "a person", "it is rude")["version"] == "2"
    champion = find_champion(month.uri, "tiny")
    assert champion is not None and champion.tags["run_key"] == "day-16"
