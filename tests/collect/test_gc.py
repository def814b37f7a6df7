"""Clearing away: what goes and what stays, killed at any moment, and beside stages that run."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_core.artifacts import Store
from qwen_core.collect.archive import Archive
from qwen_core.collect.plan import DAY, HOUR, Policy
from qwen_core.errors import InputError
from qwen_core.platform import Platform
from qwen_core.platform.database import tracking_database
from qwen_core.tracking.lineage import back

sys.path.append(str(Path(__file__).parent))
from small_store import EVERYTHING, NOW, OLD, Made, kinds


@pytest.fixture
def made(tmp_path):
    """Runs a, b and c; all share part `1`, each has one of its own."""
    store = Made(str(tmp_path / "store"))
    shared = store.part("1" * 16)
    for key, own in (("a", "2"), ("b", "3"), ("c", "4")):
        store.run(key, [shared, store.part(own * 16)], seen=OLD + ord(key))
    return store


def test_the_newest_runs_of_each_recipe_stay_and_a_shared_part_with_them(made):
    policy = Policy(keep_last=1)
    plan = made.plan(policy)
    assert [one.uri for one in plan.of("run")] == ["a", "b"] and "number 3 of recipe 'demo'" in plan.of("run")[0].why
    done = made.sweep(plan, policy).run()
    assert made.keys() == ["c"] and made.left() == {("c", "ingest"), ("c", "pack"), ("c", "pretrain")}
    assert made.parts_left() == ["1", "4"] and done.bytes == plan.bytes > 0
    made.check_whole()
    for key in "ab":
        del made.known.runs[key]  # as MLflow's runs go after the store's
    assert not made.plan(policy).going


def test_young_runs_stay_and_so_does_what_an_attempt_may_be_writing(made):
    files = list(Path(made.store.root).rglob("*"))
    written = max(file.stat().st_mtime for file in files)
    young = made.plan(Policy(keep_last=0, keep_days=0, min_age_hours=1), written + HOUR / 2)
    assert not young.going
    assert not made.plan(Policy(keep_last=0, keep_days=30, min_age_hours=0), written + 29 * DAY).going
    assert "artifact" in kinds(made.plan(Policy(keep_last=0, keep_days=30, min_age_hours=0), NOW))


def test_what_any_registered_model_was_made_from_stays_unless_its_version_may_go(made):
    versions = made.store.of_run("a"), made.store.of_run("b")
    made.register("a", versions[0], ["champion"], "1")
    made.register("b", versions[1], [], "2")
    assert [one.uri for one in made.plan().of("run")] == ["c"]
    policy = replace(EVERYTHING, drop_versions=True)
    plan = made.plan(policy)
    assert [one.uri for one in plan.of("run")] == ["b", "c"] and [one.uri for one in plan.of("version")] == ["demo/2"]
    made.sweep(plan, policy).run()
    assert made.dropped == ["demo/2"] and made.parts_left() == ["1", "2"]
    assert made.left() == {("a", "ingest"), ("a", "pack"), ("a", "pretrain")}
    made.check_whole()


def test_a_model_keeps_the_models_that_it_went_on_from_or_so_many_of_them(tmp_path):
    made = Made(str(tmp_path / "store"))
    first = made.run("a", [made.part("1" * 16)])
    second = made.run("b", [made.part("2" * 16)], origin=first["pretrain"].fingerprint)
    third = made.run("c", [made.part("3" * 16)], origin=second["pretrain"].fingerprint)
    made.register("c", third, ["champion"])
    assert not made.plan().of("artifact")
    policy = replace(EVERYTHING, generations=1)
    plan = made.plan(policy)
    made.sweep(plan, policy).run()
    assert {key for key, _ in made.left()} == {"b", "c"}
    found = back([third["pretrain"].uri], made.store)
    gone = found[first["pretrain"].uri]
    assert gone.is_gone and gone.manifest.run_key == "a"  # the lineage is told all the same
    assert first["ingest"].uri in found and not found[second["pretrain"].uri].is_gone


def test_a_run_that_goes_on_stays_and_so_do_parts_that_it_may_take_up(made):
    made.known.runs["a"][0] = replace(made.known.runs["a"][0], is_running=True, last_seen=NOW - HOUR)
    plan = made.plan()
    assert [one.uri for one in plan.of("run")] == ["b", "c"] and not plan.of("part")
    assert "parts stay for now, for ingest runs" in plan.notes[0]
    made.known.runs["a"][0] = replace(made.known.runs["a"][0], last_seen=OLD)
    plan = made.plan()
    assert len(plan.of("run")) == 3 and "--stale-days" in plan.notes[0]


def test_an_mlflow_run_stays_while_another_run_has_its_artifact(made):
    pack = made.store.of_run("a")["pack"]
    made.store.point("c", pack)
    plan = made.plan(Policy(keep_last=1))
    going = {one.uri for one in plan.of("mlflow_run")}
    assert {"a-pretrain", "b-ingest", "b-pack", "b-pretrain", "b-parent"} == going  # a's ingest made a's pack


def test_attempts_and_states_that_nobody_takes_up_again_go(made):
    root = made.store.root
    one, *_ = made.store.of_run("a").values()
    home = one.uri.rsplit("/", 1)[0]
    for place in (f"{home}/attempt-dead/x", f"{root}/sft/{'f' * 16}/attempt-1/x", f"{root}/sft/{'f' * 16}/state/x"):
        made.store.write(place, "left")
    made.store.write(f"{root}/retrain/demo/a.json", "{}")
    plan = made.plan(Policy(keep_last=9))
    assert kinds(plan) == ["attempt", "state"] and len(plan.going) == 3
    made.sweep(plan, Policy(keep_last=9)).run()
    assert made.keys() == ["a", "b", "c"] and len(made.left()) == 9
    assert made.store.read(f"{root}/retrain/demo/a.json") == b"{}"
    made.check_whole()


class KilledError(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("archived", [False, True])
def test_killed_at_any_moment_no_manifest_points_to_missing_data_and_the_next_sweep_finishes(tmp_path, archived):
    for moment in range(200):
        made = Made(str(tmp_path / f"store{moment}"))
        shared = made.part("1" * 16)
        for key, own in (("a", "2"), ("b", "3")):
            made.run(key, [shared, made.part(own * 16)], seen=OLD + ord(key), stages=("ingest", "pack"))
        archive = Archive(made.store, str(tmp_path / f"archive{moment}")) if archived else None
        policy = Policy(keep_last=1)
        sweep = made.sweep(made.plan(policy), policy, archive)
        if not _killed_after(sweep, moment):
            assert moment > 5
            break
        made.check_whole()
        made.sweep(made.plan(policy), policy, archive).run()
        made.check_whole()
        assert made.left() == {("b", "ingest"), ("b", "pack")} and made.parts_left() == ["1", "3"]
    else:
        raise AssertionError("it never came to its end")


def _killed_after(sweep, moment):
    """Run a sweep whose process is killed at its nth change of the store."""
    changes = 0

    def counted(method):
        def changed(*given):
            nonlocal changes
            changes += 1
            if changes > moment:
                raise KilledError
            method(*given)

        return changed

    sweep.delete_file, sweep.delete_folder = counted(sweep.delete_file), counted(sweep.delete_folder)
    try:
        sweep.run()
    except KilledError:
        return True
    return False


def test_an_artifact_that_a_stage_takes_up_meanwhile_is_given_back(made):
    policy = Policy(keep_last=1)
    plan = made.plan(policy)
    pack = made.store.of_run("a")["pack"]

    def ask():  # between the manifests and the data: a stage of another run has found the pack, and points to it
        made.store.point("new", pack)
        return made.known

    done = made.sweep(plan, policy, ask=ask).run()
    assert sorted(uri.split("/")[-3] for uri in done.spared) == ["ingest", "pack"]
    assert (
        ("a", "pack") in made.left() and ("a", "pretrain") not in made.left() and made.parts_left() == ["1", "2", "4"]
    )
    made.check_whole()


def test_parts_stay_when_a_corpus_stage_begins_meanwhile(made):
    policy = Policy(keep_last=1)
    plan = made.plan(policy)
    begun = replace(made.known.runs["c"][0], run_id="new", fingerprint="0" * 16, is_running=True, last_seen=NOW)

    def ask():
        made.known.runs["new"] = [begun]
        return made.known

    done = made.sweep(plan, policy, ask=ask).run()
    assert made.parts_left() == ["1", "2", "3", "4"] and "began meanwhile" in done.notes[0]
    made.check_whole()


def test_the_archive_is_a_store_of_its_own_and_brings_things_back(made, tmp_path):
    before = made.store.of_run("a")
    policy = Policy(keep_last=1)
    made.sweep(made.plan(policy), policy, Archive(made.store, str(tmp_path / "cold"))).run()
    cold = Made(str(tmp_path / "cold"))
    cold.check_whole()
    moved = cold.store.of_run("a")
    assert {n: m.fingerprint for n, m in moved.items()} == {n: m.fingerprint for n, m in before.items()}
    assert moved["pack"].inputs["ingest"] == moved["ingest"].uri and moved["pack"].uri.startswith(
        str(tmp_path / "cold")
    )
    again = Archive(cold.store, made.store.root)
    plan = cold.plan()
    cold.sweep(plan, EVERYTHING, again).run()
    assert made.store.of_run("a") == before
    made.check_whole()


def test_an_archive_within_the_store_is_refused(made):
    with pytest.raises(InputError, match="lie within one another"):
        Archive(made.store, f"{made.store.root}/cold")


@pytest.mark.slow
def test_an_object_store_is_cleared_the_same_way(object_store):
    from qwen_core.filesystem import open_filesystem

    filesystem, path = open_filesystem("s3://gc-bucket")
    filesystem.create_dir(path)
    made = Made("s3://gc-bucket/store")
    shared = made.part("1" * 16)
    for key, own in (("a", "2"), ("b", "3")):
        made.run(key, [shared, made.part(own * 16)], seen=OLD + ord(key))
    policy = Policy(keep_last=1)
    plan = made.plan(policy)
    made.sweep(plan, policy, Archive(made.store, "s3://gc-bucket/cold")).run()
    assert made.left() == {("b", "ingest"), ("b", "pack"), ("b", "pretrain")} and made.parts_left() == ["1", "3"]
    made.check_whole()
    assert set(Store("s3://gc-bucket/cold").of_run("a")) == {"ingest", "pack", "pretrain"}


def test_command_finds_the_platforms_own_database(tmp_path):
    from qwen_core.cli.gc import _database

    platform = Platform(tmp_path)
    assert _database(None, str(tmp_path), None) == tracking_database(platform.home, platform.settings)
    assert _database("sqlite:///other.db", str(tmp_path), None) == "sqlite:///other.db"
    assert _database(None, str(tmp_path), "postgresql://u@h/d") == "postgresql://u@h/d"
    assert _database(None, str(tmp_path), "http://server") is None
