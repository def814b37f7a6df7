"""Precision: bf16 and fp16 keep fp32 master weights; fp16's loss scale moves with overflows."""

import subprocess
import sys

import pytest
import torch

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Pretrain
from qwen_core.errors import RecipeError
from qwen_core.train import launch
from tests.parallel.spread import spread
from tests.parallel.zero_runs import Case, run

CASES = {
    f"{precision} {stage}": Case(stage=stage, precision=precision)
    for precision in ("bf16", "fp16")
    for stage in (0, 1, 2, 3)
}


@pytest.fixture(scope="module")
def runs():
    """Runs of one process; fp16 on a CPU too, where torch can do it slowly."""
    overflow = {f"overflow {stage}": Case(stage=stage, precision="fp16", poison=1) for stage in (0, 2, 3)}
    small = {"small": Case(stage=2, precision="bf16", learning_rate=1e-5), "fp32": Case(stage=2)}
    cases = CASES | overflow | small
    return dict(zip(cases, spread(run, 1, [("train", case) for case in cases.values()])[0], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_all_stages_train_alike_in_half_precision_and_near_to_fp32(runs, name):
    assert runs[name]["losses"] == pytest.approx(runs["fp32"]["losses"], abs=0.02)
    assert all(runs[name]["applied"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_an_overflow_of_fp16_skips_the_step_and_halves_the_scale(runs, stage):
    told = runs[f"overflow {stage}"]
    assert told["applied"] == [True, False, True, True]
    assert told["scales"] == [2.0**16, 2.0**16, 2.0**15, 2.0**15]


@pytest.mark.slow
def test_steps_too_small_for_bf16_add_up_in_the_master_weights(runs):
    """At a rate of 1e-5 no bf16 number of size 1, whose neighbours are 0.004 to 0.008 away, would ever move."""
    assert runs["small"]["masters"] > 0


def test_fp16_on_a_cpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(launch.ray, "cluster_resources", lambda: {"CPU": 8})
    plan = launch.Plan("pretrain", Pretrain(precision="fp16"), Parallel(), 1, None, None, "", "", "", 0, 0)
    with pytest.raises(RecipeError, match="take bf16"):
        launch.check_plan(plan)


_ON_GPU = """
import torch.distributed as dist
dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
from tests.parallel.zero_runs import Case, train
print(train(Case({arguments}, use_gpu=True))["losses"][-1])
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "arguments",
    [
        "stage=3, precision='fp16'",
        "stage=2, precision='fp16'",
        "stage=3, precision='bf16', offload='cpu', offload_parameters='cpu'",
        "stage=3, precision='bf16', offload='nvme', offload_parameters='nvme'",
    ],
)
def test_half_precision_and_offload_train_on_a_gpu(arguments):
    if "nvme" in arguments:
        builder = pytest.importorskip("deepspeed.ops.op_builder").AsyncIOBuilder()
        if not builder.is_compatible(verbose=False):
            pytest.skip("NVMe offload needs libaio's headers and a compiler")
    command = [sys.executable, "-c", _ON_GPU.format(arguments=arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) < 5
