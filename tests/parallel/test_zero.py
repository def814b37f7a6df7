"""ZeRO: one process, two processes and all stages train alike; what is refused leaves no trace."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.parallel.spread import spread
from tests.parallel.zero_runs import SPARSE, Case, run

pytestmark = pytest.mark.slow

ONE = Case(stage=0, micro=8)
STAGES = {f"stage {stage}": Case(stage=stage) for stage in (0, 1, 2, 3)}
CUTS = {f"micro {micro}": Case(stage=3, micro=micro) for micro in (1, 4)}
OPTIMISERS = {
    f"{optimizer} {stage}": Case(stage=stage, optimizer=optimizer) for optimizer in ("lamb", "muon") for stage in (1, 3)
}
OFFLOADED = {
    "optimizer on the cpu, stage 2": Case(stage=2, offload="cpu"),
    "optimizer on the cpu, stage 3": Case(stage=3, offload="cpu"),
    "weights on the cpu": Case(stage=3, offload="cpu", offload_parameters="cpu"),
}


def _train(world: int, cases: dict[str, Case], function: str = "train") -> dict[str, dict]:
    answers = spread(run, world, [(function, case) for case in cases.values()])[0]
    return dict(zip(cases, answers, strict=True))


@pytest.fixture(scope="module")
def alone():
    """Runs of one process, without ZeRO, all sequences in one pass."""
    optimisers = {name: replace(ONE, optimizer=name) for name in ("lamb", "muon")}
    sparse = {"sparse": Case(stage=0, micro=4, config=SPARSE)}
    sparse |= {"sparse muon": replace(sparse["sparse"], optimizer="muon")}
    many = {"many passes": replace(ONE, micro=1)}
    return _train(1, {"adamw": ONE} | optimisers | sparse | many)


@pytest.fixture(scope="module")
def both():
    """Runs of two processes."""
    sparse = {"sparse": Case(config=SPARSE, micro=4), "sparse muon": Case(config=SPARSE, micro=4, optimizer="muon")}
    for stage in (1, 3):
        shared = Case(stage=stage, config=SPARSE, micro=4, expert=2, is_meta=True)
        sparse |= {f"shared {stage}": shared, f"shared muon {stage}": replace(shared, optimizer="muon")}
    meta = {"meta": Case(is_meta=True)}
    return _train(2, STAGES | CUTS | OPTIMISERS | OFFLOADED | sparse | meta)


def _assert_equal(result, expected, tolerance=1e-6):
    assert result["losses"] == pytest.approx(expected["losses"], abs=tolerance)
    assert result["norms"] == pytest.approx(expected["norms"], rel=20 * tolerance)
    assert list(result["weights"]) == list(expected["weights"])
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(result["weights"][name], weight, atol=20 * tolerance, rtol=1e-4, msg=name)
    torch.testing.assert_close(result["measured"], expected["measured"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*STAGES, *CUTS, *OFFLOADED, "meta"])
def test_two_processes_equal_one_whatever_is_spread(both, alone, name):
    _assert_equal(both[name], alone["adamw"])


@pytest.mark.parametrize("name", [*STAGES, "shared 3"])
def test_communication_is_told_apart_from_the_work(both, name):
    seconds = both[name]["seconds"]
    assert set(seconds) == {"communication", "forward", "backward", "optimiser"}
    assert all(spent > 0 for spent in seconds.values())


def test_eight_small_passes_equal_a_large_one_with_unequal_token_counts(alone):
    _assert_equal(alone["many passes"], alone["adamw"])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_lamb_and_muon_see_whole_matrices_of_partitioned_weights(both, alone, name):
    _assert_equal(both[name], alone[name.split()[0]], 3e-6)


@pytest.mark.parametrize("name", ["shared 1", "shared 3", "shared muon 1", "shared muon 3"])
def test_experts_that_are_shared_out_train_like_those_that_are_together(both, alone, name):
    _assert_equal(both[name], alone[name.replace("shared", "sparse").rpartition(" ")[0]], 3e-6)


REFUSED = {
    "without ZeRO": Case(stage=0, refuse=1),
    "stage 1, bf16": Case(stage=1, precision="bf16", refuse=1),
    "stage 2": Case(stage=2, precision="bf16", refuse=1),
    "stage 2, offloaded": Case(stage=2, offload="cpu", refuse=1),
    "stage 3": Case(stage=3, refuse=1),
    "stage 3, offloaded": Case(stage=3, precision="bf16", offload="cpu", refuse=1),
    "stage 3, muon": Case(stage=3, precision="bf16", optimizer="muon", refuse=1),
}
POISONED = {name: replace(case, poison=1, refuse=-1) for name, case in REFUSED.items() if "muon" not in name}


@pytest.fixture(scope="module")
def dropped():
    """Runs that refuse a step, runs whose loss is NaN in it, and runs that never take it."""
    cases = [("train", case) for case in (*REFUSED.values(), *POISONED.values())]
    answers = iter(spread(run, 2, [*cases, *(("skip", case) for case in REFUSED.values())])[0])
    refused = {name: next(answers) for name in REFUSED}
    poisoned = {name: next(answers) for name in POISONED}
    return refused, poisoned, {name: next(answers) for name in REFUSED}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_step_leaves_no_trace(dropped, name):
    refused, _, without = dropped
    assert refused[name]["applied"] == [True, False, True, True]
    losses = refused[name]["losses"]
    assert [*losses[:1], *losses[2:]] == without[name]["losses"]  # bit for bit
    for key, weight in without[name]["weights"].items():
        assert torch.equal(refused[name]["weights"][key], weight), key


@pytest.mark.parametrize("name", POISONED)
def test_a_step_of_nan_changes_nothing(dropped, name):
    _, poisoned, without = dropped
    assert poisoned[name]["applied"] == [True, False, True, True]
    for key, weight in without[name]["weights"].items():
        assert torch.equal(poisoned[name]["weights"][key], weight), key


@pytest.mark.parametrize("name", ["sparse", "sparse muon"])
def test_experts_train_alike_on_two_processes_that_route_differently(both, alone, name):
    """Two passes of four sequences here, one on each of two there: the routers' balance is taken of the same tokens."""
    _assert_equal(both[name], alone[name], 3e-6)
    assert both[name]["figures"] == pytest.approx(alone[name]["figures"], rel=1e-3)
    assert both[name]["figures"]["router/max_load"] >= 1


_COMPILED = """
import torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
from tests.parallel.zero_runs import Case, train
print(*train(Case(stage=3, micro=8, compile=True))["losses"])
"""


def test_compiled_layers_train_alike(alone):
    done = subprocess.run([sys.executable, "-c", _COMPILED], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [float(word) for word in done.stdout.split()[-4:]]
    assert losses == pytest.approx(alone["adamw"]["losses"], abs=1e-4)
