"""What a retraining would do, and when there is nothing to do; no stage is run."""

import datetime
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from qwen_core.artifacts import Store
from qwen_core.errors import ArtifactError, InputError, NothingToDoError, RecipeError
from qwen_core.jobs import line
from qwen_core.jobs.planning import plan
from qwen_core.jobs.retrain import main
from qwen_core.parts import parts_of
from tests.jobs.retraining import NAME, asked, make, register, write_day

NOW = datetime.datetime(2026, 1, 31, 1, tzinfo=datetime.UTC)
CORPUS = ("ingest", "classifiers", "filter", "dedup")
TRAINED = ("tokenizer", "pack", "pretrain", "instruct", "sft", "preference", "dpo", "evaluate")


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    monkeypatch.setattr(line, "_SETTLE_SECONDS", 0.0)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def days(tmp_path):
    folder = tmp_path / "days"
    write_day(folder, "2026-01-01")
    return folder


def planned(wanted, store, uri, now=NOW, **options):
    return plan(wanted, store, uri, now, **options).result


def reason_of(wanted, store, uri, now=NOW):
    with pytest.raises(NothingToDoError) as found:
        plan(wanted, store, uri, now)
    return str(found.value)


def finished(store, uri, days, run_key="r1"):
    """Plan a run and commit all its stages."""
    wanted = asked(days, run_key)
    plan(wanted, store, uri, NOW)
    return make(store, wanted, (*CORPUS, *TRAINED, "release"))


def overrides_of(result):
    return dict(override.split("=", 1) for override in result["overrides"])


def test_the_first_retraining_reads_everything_and_starts_from_scratch(store, days, mlflow_uri):
    result = planned(asked(days, "r1"), store, mlflow_uri)
    assert result["overrides"] == [] and result["run_key"] == "r1" and result["new_files"] == 1
    assert result["reason"].startswith("no corpus yet: 1 new file") and "no champion" in result["reason"]


def test_nothing_new_is_told_with_the_reason(store, days, mlflow_uri):
    finished(store, mlflow_uri, days)
    assert reason_of(asked(days, "r2"), store, mlflow_uri) == (
        "nothing new: 1 file in the inputs, all of them in the corpus already"
    )


def test_a_new_file_is_added_to_the_corpus_and_the_model_goes_on_from_the_champion(store, days, mlflow_uri):
    made = finished(store, mlflow_uri, days)
    register(mlflow_uri, [{"model_fingerprint": made["dpo"].fingerprint}], champion="1")
    write_day(days, "2026-01-02")
    wanted = asked(days, "r2", steps_ratio=0.5, new_weight=2.0, max_tokenizer_drift_ratio=0.1)
    result = planned(wanted, store, mlflow_uri)
    assert (result["new_files"], result["known_files"], result["champion"]) == (1, 1, "1")
    told = overrides_of(result)
    assert told["ingest.base"] == result["base"] == made["ingest"].uri
    assert told["tokenizer.keep_from"] == made["tokenizer"].uri and told["tokenizer.max_drift_ratio"] == "0.1"
    assert told["pack.heldout_from"] == made["pack"].uri
    assert told["pretrain.init_from"] == made["pretrain"].uri  # not the aligned model
    assert told["pretrain.continued.steps_ratio"] == "0.5" and told["pretrain.if_new_tokenizer"] == "start_anew"
    assert told["pack.new_from"] == made["ingest"].uri and told["pack.new_weight"] == "2.0"


def test_a_recipe_may_start_each_model_from_scratch_on_the_same_held_out_set(store, days, mlflow_uri):
    made = finished(store, mlflow_uri, days)
    register(mlflow_uri, [{"model_fingerprint": made["dpo"].fingerprint}], champion="1")
    write_day(days, "2026-01-02")
    told = overrides_of(planned(asked(days, "r2", init_from="scratch"), store, mlflow_uri))
    assert "pretrain.init_from" not in told and told["pack.heldout_from"] == made["pack"].uri


def test_a_planner_that_is_run_again_gives_the_same_answer(store, days, mlflow_uri):
    first = planned(asked(days, "r1"), store, mlflow_uri)
    write_day(days, "2026-01-02")
    assert planned(asked(days, "r1"), store, mlflow_uri) == first


def test_a_plan_that_is_only_looked_at_leaves_no_record(store, days, mlflow_uri):
    planned(asked(days, "look"), store, mlflow_uri, is_binding=False)
    assert planned(asked(days, "r1"), store, mlflow_uri)["run_key"] == "r1"


def test_while_a_retraining_is_under_way_what_is_new_waits(store, days, mlflow_uri):
    planned(asked(days, "r1"), store, mlflow_uri)
    write_day(days, "2026-01-02")
    told = reason_of(asked(days, "r2"), store, mlflow_uri, NOW + datetime.timedelta(hours=2))
    assert "run 'r1' is under way (no stage of it is finished, 2.0 hours ago)" in told
    assert "retrain.stale_after_hours=0" in told
    assert planned(asked(days, "r2", stale_after_hours=0), store, mlflow_uri)["run_key"] == "r2"


def test_a_run_that_stopped_before_its_corpus_was_committed_is_no_base(store, days, mlflow_uri):
    finished(store, mlflow_uri, days)
    write_day(days, "2026-01-02")
    wanted = asked(days, "r2")
    planned(wanted, store, mlflow_uri)
    make(store, wanted, ("ingest",))
    result = planned(
        asked(days, "r3"), store, mlflow_uri, datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    )
    assert result["new_files"] == 1 and result["base"] == store.of_run("r1")["ingest"].uri


def test_the_corpus_goes_on_from_the_newest_though_its_training_never_ended(store, days, mlflow_uri):
    made = finished(store, mlflow_uri, days)
    register(mlflow_uri, [{"model_fingerprint": made["dpo"].fingerprint}], champion="1")
    second = write_day(days, "2026-01-02")
    wanted = asked(days, "r2")
    planned(wanted, store, mlflow_uri)
    newer = make(store, wanted, CORPUS)
    write_day(days, "2026-01-03")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    told = overrides_of(planned(asked(days, "r3"), store, mlflow_uri, later))
    assert told["ingest.base"] == newer["ingest"].uri and told["pretrain.init_from"] == made["pretrain"].uri
    assert second.exists()


def test_a_training_that_was_given_up_is_gone_on_with_when_nothing_is_new_and_only_so_often(store, days, mlflow_uri):
    wanted = asked(days, "r1")
    first = planned(wanted, store, mlflow_uri)
    make(store, wanted, CORPUS)
    later = datetime.datetime.now(datetime.UTC)
    for attempt in (2, 3):
        later += datetime.timedelta(days=1)
        again = planned(asked(days, f"other-{attempt}"), store, mlflow_uri, later)
        assert (again["run_key"], again["overrides"], again["attempt"]) == ("r1", first["overrides"], attempt)
        assert "was given up ('dedup' is its last finished stage)" in again["reason"]
    told = reason_of(asked(days, "last"), store, mlflow_uri, later + datetime.timedelta(days=1))
    assert "'r1' did not reach its end in 3 attempts" in told and "--run-key r1" in told


def test_few_new_files_or_bytes_wait_for_more(store, days, mlflow_uri):
    finished(store, mlflow_uri, days)
    write_day(days, "2026-01-02")
    assert "1 new file of" in reason_of(asked(days, "r2", min_new_files=2), store, mlflow_uri)
    assert "retrain.min_new_bytes 99,999" in reason_of(asked(days, "r2", min_new_bytes=99_999), store, mlflow_uri)
    write_day(days, "2026-01-03")
    assert planned(asked(days, "r2", min_new_files=2), store, mlflow_uri)["new_files"] == 2


def test_a_day_without_a_file_is_skipped_and_a_folder_that_has_gone_is_a_fault(store, days, mlflow_uri, tmp_path):
    dated = days / "{date}.jsonl"
    assert "2026-01-09.jsonl" in reason_of(asked(dated, "r1", date="2026-01-09"), store, mlflow_uri)
    result = planned(asked(dated, "r1", date="2026-01-01T00:00:00+00:00"), store, mlflow_uri)
    assert overrides_of(result)["ingest.inputs"] == f"[{days}/2026-01-01.jsonl]"
    with pytest.raises(InputError, match="gone"):
        plan(asked(tmp_path / "gone", "r2", stale_after_hours=0), store, mlflow_uri, NOW)
    with pytest.raises(RecipeError, match="stands for no date"):
        plan(asked(dated, "r3", stale_after_hours=0), store, mlflow_uri, NOW)
    with pytest.raises(RecipeError, match="is no date"):
        plan(asked(dated, "r3", date="yesterday", stale_after_hours=0), store, mlflow_uri, NOW)


def test_a_changed_reading_of_the_sources_is_refused_before_anything_runs(store, days, mlflow_uri):
    finished(store, mlflow_uri, days)
    write_day(days, "2026-01-02")
    wanted = asked(days, "r2")
    ingest = wanted.recipe.ingest.model_copy(update={"width": "half"})
    other = wanted.__class__(NAME, (), wanted.recipe.model_copy(update={"ingest": ingest}), "r2")
    with pytest.raises(InputError, match=r"ingest.width is half, and was keep"):
        plan(other, store, mlflow_uri, NOW)


def test_a_corpus_of_ones_own_choice_is_gone_on_from(store, days, mlflow_uri):
    finished(store, mlflow_uri, days)
    write_day(days, "2026-01-02")
    anew = planned(asked(days, "a", corpus_from="nothing"), store, mlflow_uri, is_binding=False)
    assert anew["base"] is None and anew["new_files"] == 2
    named = planned(asked(days, "a", corpus_from="r1"), store, mlflow_uri, is_binding=False)
    assert named["base"] == store.of_run("r1")["ingest"].uri
    with pytest.raises(ArtifactError, match=r"retrain.corpus_from is 'r9'"):
        plan(asked(days, "a", corpus_from="r9"), store, mlflow_uri, NOW)


def test_a_corpus_that_has_grown_by_itself_is_trained_on_though_there_is_nothing_to_read(store, days, mlflow_uri):
    made = finished(store, mlflow_uri, days)
    register(mlflow_uri, [{"model_fingerprint": made["dpo"].fingerprint}], champion="1")
    write_day(days, "2026-01-02")
    daily = make(store, asked(days, "daily"), CORPUS)
    found = planned(asked(days, "r2", corpus_from="daily"), store, mlflow_uri)
    assert found["new_files"] == 0 and found["base"] == daily["ingest"].uri
    assert "1 file of the corpus in no retraining yet" in found["reason"]
    make(store, asked(days, "r2"), (*CORPUS, *TRAINED, "release"), base=parts_of(daily["ingest"]))
    assert reason_of(asked(days, "r3", corpus_from="daily"), store, mlflow_uri).startswith("nothing new")
    with pytest.raises(NothingToDoError, match="nothing new"):  # a day that is planned for the corpus itself
        plan(asked(days, "daily", corpus_from="daily"), store, mlflow_uri, NOW, is_binding=False)


def test_a_copy_of_a_known_file_is_nothing_new(store, days, mlflow_uri):
    finished(store, mlflow_uri, days)
    (days / "again.jsonl").write_bytes((days / "2026-01-01.jsonl").read_bytes())
    assert "nothing new" in reason_of(asked(days, "r2"), store, mlflow_uri)
    assert len(parts_of(store.of_run("r1")["ingest"])) == 1


def test_of_planners_at_the_same_moment_one_has_it(store, days, mlflow_uri, monkeypatch):
    monkeypatch.setattr(line, "_SETTLE_SECONDS", 0.5)

    def one(key):
        try:
            return plan(asked(days, key), store, mlflow_uri, NOW).run_key
        except NothingToDoError as reason:
            return str(reason)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, ["d", "b", "a", "c"]))
    winners = [answer for answer in answers if len(answer) == 1]
    assert len(winners) == 1 and all(f"run '{winners[0]}'" in answer for answer in answers if len(answer) > 1)
    assert [record.run_key for record in line.Line(store, NAME).records()] == winners


def test_the_job_answers_with_a_line_or_with_exit_code_nine(tmp_path, days, mlflow_uri, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"name: {NAME}\ningest:\n  inputs: ['{days}']\nrelease:\n  model_name: {NAME}\n")
    places = ["--store", str(tmp_path / "store"), "--tracking-uri", mlflow_uri]
    assert main(["--recipe", str(recipe), "--run-key", "r1", *places]) == 0
    line_of = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(line_of.removeprefix("qwen-core result: "))["recipe"] == str(recipe)
    assert main(["--recipe", str(recipe), "--run-key", "r2", *places]) == 9
    assert capsys.readouterr().out.startswith("[retrain] nothing to do: run 'r1' is under way")
    assert main(["--recipe", "no-such", "--run-key", "r2", *places]) == 2
