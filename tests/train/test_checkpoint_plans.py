"""Checkpoints of spread models: the same plan to the last bit, another plan to the rounding of fp32."""

import pytest
import torch

from tests.parallel.spread import spread
from tests.train.checkpoint_runs import run_plans

pytestmark = pytest.mark.slow
SAVED, STEPS = 3, 6
ALONE = {"zero": 3}
PLANS = {
    "zero3": {"zero": 3},
    "zero3 bf16": {"zero": 3, "precision": "bf16"},
    "zero2 muon": {"zero": 2, "optimizer": "muon"},
    "zero0": {"zero": 0},
    "zero0 bf16": {"zero": 0, "precision": "bf16"},
    "tensor": {"pipeline": 1, "tensor": 2},
    "pipeline tied": {"pipeline": 2, "tensor": 1, "tied": True},
    "experts": {"zero": 3, "expert": 2, "sparse": True},
}
BACK = ("zero3 bf16", "tensor")
CHANGES = (
    ("zero3", "tensor"),
    ("tensor", "pipeline"),
    ("zero0", "zero1"),
    ("pipeline tied", "zero3 tied"),
    ("experts", "zero2 sparse"),
)
OTHERS = {
    "zero1": {"zero": 1},
    "pipeline": {"pipeline": 2, "tensor": 1},
    "zero3 tied": {"zero": 3, "tied": True},
    "zero2 sparse": {"zero": 2, "sparse": True},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All runs, in three starts: one worker, two, one again."""
    root = tmp_path_factory.mktemp("plans")

    def save(name, plan, to):
        return 1, plan, f"{root}/{name} to {to}", 0, SAVED, (SAVED - 1, SAVED)

    def go_on(name, plan, to):  # another seed: what is drawn must come from the checkpoint
        return 77, plan, f"{root}/{name} to {to}", 0, STEPS, ()

    def without_a_break(name, plan):
        return 1, plan, f"{root}/{name} whole", 0, STEPS, ()

    alone = {"": without_a_break("alone", ALONE)}
    alone |= {key: without_a_break(key, ALONE | {key: True}) for key in ("tied", "sparse")}
    first = spread(run_plans, 1, [*alone.values(), save("one", ALONE, "two")])[0]
    by_name = dict(zip(alone, first, strict=False))

    second = {}
    for name, plan in PLANS.items():
        second[f"{name} whole"] = without_a_break(name, plan)
        second[f"{name} save"] = save(name, plan, "same")
        second[f"{name} same"] = go_on(name, plan, "same")
    for name in BACK:
        second[f"{name} back"] = (1, PLANS[name], f"{root}/{name} back", 0, STEPS, (SAVED,), STEPS - 1)
    for name, to in CHANGES:
        second[f"{name} saved for {to}"] = save(name, PLANS[name], to)
        second[f"{name} to {to}"] = go_on(name, (PLANS | OTHERS)[to], to)
    second["two saved for one"] = save("two", PLANS["zero3"], "one")
    second["one to two"] = go_on("one", PLANS["zero3"], "two")
    by_rank = spread(run_plans, 2, list(second.values()))
    for rank, told in enumerate(by_rank):
        by_name |= {(name, rank): outcome for name, outcome in zip(second, told, strict=True)}

    third = spread(run_plans, 1, [go_on("two", ALONE, "one")])
    return by_name | {("two to one", 0): third[0][0]}


@pytest.mark.parametrize("name", PLANS)
def test_same_plan_goes_on_to_the_last_bit(outcomes, name):
    for rank in (0, 1):
        whole, resumed = outcomes[f"{name} whole", rank], outcomes[f"{name} same", rank]
        assert resumed["begun"] == SAVED
        assert resumed["losses"] == whole["losses"]
        assert resumed["drawn"] == whole["drawn"]
        for weight, other in zip(whole["weights"].values(), resumed["weights"].values(), strict=True):
            assert torch.equal(weight, other)


@pytest.mark.parametrize("change", [*(f"{name} to {to}" for name, to in CHANGES), "one to two", "two to one"])
def test_other_plan_goes_on_as_one_process_would(outcomes, change):
    whole, resumed = outcomes[next((key for key in ("tied", "sparse") if key in change), "")], outcomes[change, 0]
    assert resumed["begun"] == SAVED and len(resumed["losses"]) == STEPS
    gaps = [abs(one - other) for one, other in zip(whole["losses"], resumed["losses"], strict=True)]
    assert max(gaps) < 1e-6, gaps
    assert set(whole["weights"]) == set(resumed["weights"])
    for name, weight in whole["weights"].items():
        assert torch.allclose(weight, resumed["weights"][name], atol=2e-5), name


@pytest.mark.parametrize("name", BACK)
def test_going_back_repeats_the_steps_to_the_last_bit(outcomes, name):
    assert outcomes[f"{name} back", 0]["losses"] == outcomes[f"{name} whole", 0]["losses"]


def test_each_worker_has_random_numbers_of_its_own_again(outcomes):
    _, *first = outcomes["zero3 same", 0]["drawn"]
    _, *second = outcomes["zero3 same", 1]["drawn"]
    assert all(one != other for one, other in zip(first, second, strict=True))
