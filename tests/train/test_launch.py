"""Before and after the workers: what is refused, and which error is told."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Pretrain
from qwen_core.errors import DivergedError, RecipeError
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.train import launch
from qwen_core.train.launch import Plan, check_plan, root_cause, train


class WrappedError(Exception):
    """As Ray wraps a worker's error."""

    def __init__(self, cause=None, failures=None):
        super().__init__("wrapped")
        self.cause, self.worker_failures = cause, failures or {}


def test_the_error_that_came_first_is_told_not_those_of_workers_that_lost_touch():
    lost = WrappedError(RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:4242"))
    first = WrappedError(ValueError("row 7 is empty"))
    assert root_cause(WrappedError(failures={0: lost, 1: first})) == "ValueError: row 7 is empty (worker 1)"
    assert "Connection closed by peer" in root_cause(WrappedError(failures={0: lost}))
    assert root_cause(OSError("no space")) == "OSError: no space"


def _plan(settings, parallel):
    config = ModelConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    return Plan("pretrain", settings, parallel, 1, lambda: CausalLM(config), lambda model: None, "", "", "", 1, 0)


@pytest.mark.parametrize(
    ("settings", "parallel", "told"),
    [
        (Pretrain(global_batch_size=6), Parallel(), "global_batch_size \\(6\\) must be a multiple of"),
        (Pretrain(), Parallel(num_workers=16, zero_stage=3), "the Ray cluster has 4"),
        (Pretrain(), Parallel(num_workers=4, pipeline=4, zero_stage=1), "num_hidden_layers"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_before_anything_starts(monkeypatch, settings, parallel, told):
    monkeypatch.setattr(launch.ray, "cluster_resources", lambda: {"CPU": 4.0})
    with pytest.raises(RecipeError, match=told):
        check_plan(_plan(settings, parallel))


@pytest.mark.parametrize("told", ["training went astray", ""])
def test_what_the_workers_return_decides_whether_training_went_well(monkeypatch, told):
    monkeypatch.setattr(launch.ray, "cluster_resources", lambda: {"CPU": 4.0})
    result = SimpleNamespace(metrics=None, return_value=told)
    monkeypatch.setattr(launch, "_trainer", lambda plan: SimpleNamespace(fit=lambda: result))
    with pytest.raises(DivergedError, match="pretrain failed: training went astray") if told else nullcontext():
        train(_plan(Pretrain(), Parallel()))


def test_a_plan_that_fits_is_let_through(monkeypatch):
    monkeypatch.setattr(launch.ray, "cluster_resources", lambda: {"CPU": 4.0})
    check_plan(_plan(Pretrain(), Parallel()))
