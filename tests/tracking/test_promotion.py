"""The alias champion and its history, on a real database of MLflow."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow.tracking import MlflowClient

from qwen_core.errors import InputError
from qwen_core.tracking.promotion import history, promote, reject, roll_back
from qwen_core.tracking.registry import find_champion, find_version, versions
from tests.jobs.retraining import NAME, register


@pytest.fixture
def registered(mlflow_uri):
    return register(mlflow_uri, [{}, {}, {}])


def champion(uri):
    found = find_champion(uri, NAME)
    return found and found.version


def test_each_promotion_tells_who_when_why_and_what_was_before(mlflow_uri, registered):
    promote(mlflow_uri, registered[0], "ann", "the first")
    promote(mlflow_uri, registered[1], "ben", "better")
    told = history(mlflow_uri, NAME)
    assert [(m.version, m.previous, m.action, m.by, m.why) for m in told] == [
        ("1", "", "promote", "ann", "the first"),
        ("2", "1", "promote", "ben", "better"),
    ]
    assert told[0].at < told[1].at and champion(mlflow_uri) == "2"
    tags = find_version(mlflow_uri, NAME, "2").tags
    assert (tags["promoted_by"], tags["previous"]) == ("ben", "1")


def test_a_no_is_told_of_the_version_and_moves_no_alias(mlflow_uri, registered):
    promote(mlflow_uri, registered[0], "ann", "the first")
    reject(mlflow_uri, registered[1], "ben", "rude")
    tags = find_version(mlflow_uri, NAME, "2").tags
    assert (tags["rejected_by"], tags["rejected_why"]) == ("ben", "rude") and tags["rejected_at"]
    assert champion(mlflow_uri) == "1" and len(history(mlflow_uri, NAME)) == 1


def test_a_promotion_done_twice_is_done_once(mlflow_uri, registered):
    assert promote(mlflow_uri, registered[0], "ann", "x") is not None
    assert promote(mlflow_uri, registered[0], "ben", "y") is None
    assert len(history(mlflow_uri, NAME)) == 1


def test_a_promotion_that_was_killed_before_its_history_is_completed(mlflow_uri, registered):
    promote(mlflow_uri, registered[0], "ann", "x")
    MlflowClient(mlflow_uri).set_registered_model_alias(NAME, "champion", "2")
    assert promote(mlflow_uri, registered[1], "ben", "y").previous == "1"
    assert champion(mlflow_uri) == "2" and len(history(mlflow_uri, NAME)) == 2


def test_a_rollback_goes_back_and_again_further_back(mlflow_uri, registered):
    for one in registered:
        promote(mlflow_uri, one, "ann", "better")
    assert roll_back(mlflow_uri, NAME, "ben", "rude").version == "2"
    assert find_version(mlflow_uri, NAME, "3").tags["rolled_back_why"] == "rude"
    assert roll_back(mlflow_uri, NAME, "ben", "rude too").version == "1" and champion(mlflow_uri) == "1"
    with pytest.raises(InputError, match="version 1 of 'small' is the first champion"):
        roll_back(mlflow_uri, NAME, "ben", "?")
    assert roll_back(mlflow_uri, NAME, "ben", "after all", to="3").version == "3"
    assert [move.action for move in history(mlflow_uri, NAME)] == ["promote"] * 3 + ["rollback"] * 3


def test_a_version_that_was_deleted_is_passed_over(mlflow_uri, registered):
    for one in registered:
        promote(mlflow_uri, one, "ann", "better")
    MlflowClient(mlflow_uri).delete_model_version(NAME, "2")
    assert roll_back(mlflow_uri, NAME, "ben", "rude").version == "1"


def test_what_is_not_there_is_named(mlflow_uri, registered):
    with pytest.raises(InputError, match=r"no version 9 of 'small'.*it has the versions 3, 2, 1"):
        find_version(mlflow_uri, NAME, "9")
    with pytest.raises(InputError, match="knows no such model"):
        find_version(mlflow_uri, "other", "1")
    with pytest.raises(InputError, match="has no champion to roll back from; its versions are 3, 2, 1"):
        roll_back(mlflow_uri, NAME, "ben", "?")
    promote(mlflow_uri, registered[0], "ann", "x")
    with pytest.raises(InputError, match="champion already"):
        roll_back(mlflow_uri, NAME, "ben", "?", to="1")
    assert versions(mlflow_uri, "other") == [] and history(mlflow_uri, "other") == []


def test_two_promotions_at_once_leave_one_champion_and_both_in_the_history(mlflow_uri, registered):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: promote(mlflow_uri, one, "ann", "x"), registered[:2]))
    assert champion(mlflow_uri) in ("1", "2")
    assert {move.version for move in history(mlflow_uri, NAME)} == {"1", "2"}


def test_a_server_that_does_not_answer_is_no_missing_champion(mlflow_uri, monkeypatch):
    from mlflow.exceptions import MlflowException

    def away(*_):
        raise MlflowException("away")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", away)
    with pytest.raises(MlflowException, match="away"):
        find_champion(mlflow_uri, NAME)
