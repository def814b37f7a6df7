"""Three dimensions give the losses, norms and weights of one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.parallel.runs import run_each, run_plans
from tests.parallel.spread import spread
from tests.parallel.tiny import (
    OPTIM,
    Outcome,
    assert_equal,
    make_batches,
    tiny_config,
    tiny_model,
    train_alone,
    uneven_steps,
)

pytestmark = pytest.mark.slow

PIPE: dict[str, Any] = {"pipeline": 2, "tensor": 1}
TENSOR: dict[str, Any] = {"pipeline": 1, "tensor": 2}
CUBE: dict[str, Any] = {"pipeline": 2, "tensor": 2}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
SPARSE: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "router_aux_loss_coef": 0.5,
    "router_z_loss_coef": 0.1,
}
SHARED: dict[str, Any] = SPARSE | {
    "model_type": "qwen2_moe",
    "shared_expert_intermediate_size": 24,
    "mlp_only_layers": (0,),
    "norm_topk_prob": False,
}


def compare(by_rank: Sequence[list[Outcome]], plans: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Compare what plans gave, on each worker, with one process."""
    for number, (changes, arguments) in enumerate(plans):
        alone = train_alone(tiny_config(**changes), arguments.get("optim", OPTIM))
        assert_equal([outcomes[number] for outcomes in by_rank], alone, 1e-5 if "optim" in arguments else 2e-6)


def test_two_workers_equal_one_process():
    muon = {"optim": dataclasses.replace(OPTIM, name="muon")}
    plans = [
        (TIED, PIPE | {"gradient_checkpointing": "full"} | muon),
        (TIED | {"model_type": "qwen2"}, TENSOR | {"sequence_parallel": True}),
        ({"num_key_value_heads": 1}, TENSOR),
    ]
    compare(spread(run_plans, 2, plans), plans)


def test_eight_workers_in_three_dimensions_equal_one_process():
    plans = [
        ({"num_key_value_heads": 1}, CUBE),
        (SHARED | TIED, CUBE | {"sequence_parallel": True, "gradient_checkpointing": "every_2"}),
    ]
    compare(spread(run_plans, 8, plans), plans)


def test_what_a_run_may_do_between_its_steps(tmp_path):
    """One start of four processes: uneven and refused steps, resuming, precisions, the experts' loads."""
    uneven = (SPARSE, CUBE | {"sequence_parallel": True})
    calls = [
        ("run_uneven", (uneven,)),
        ("run_resumed", ((TIED, PIPE), str(tmp_path))),
        ("run_precisions", ((TIED, CUBE), ["fp32", "bf16"])),
        ("run_report", ((SHARED, CUBE | {"balance": "global_batch"}),)),
    ]
    by_rank = spread(run_each, 4, calls)
    assert_equal([results[0] for results in by_rank], uneven_alone(SPARSE))
    assert_resumed_alike(by_rank[0][1])
    for results in by_rank:
        assert results[2]["bf16"] == pytest.approx(results[2]["fp32"], rel=0.02)
        assert results[2] == by_rank[0][2]
        assert results[3] == by_rank[0][3]
    assert_loads_of_all_stages(by_rank[0][3])


def uneven_alone(changes: dict[str, Any]) -> Outcome:
    """Train the same steps in one process, none of them refused, and measure an odd length."""
    config = tiny_config(**changes)
    outcome = train_alone(config, steps=uneven_steps())
    model = tiny_model(config)
    model.load_state_dict(outcome.weights, strict=False)
    batch = make_batches(9, rows=1, length=21)[0]
    with torch.no_grad():
        outcome.measured = model(batch.input_ids, segment_ids=batch.segment_ids, labels=batch.labels)
    return outcome


def assert_resumed_alike(weights: list[dict[str, torch.Tensor]]) -> None:
    """Weights after going on, and after going on from the saved state, are the same to the last bit."""
    straight, resumed = weights
    assert straight.keys() == resumed.keys() and straight
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def assert_loads_of_all_stages(figures: dict[str, float]) -> None:
    """The sparse layers are the last two of three, which lie on two stages."""
    assert {name.split("/")[1] for name in figures if "layer" in name} == {"layer_01", "layer_02"}
    layers = [value for name, value in figures.items() if name.endswith("layer_01/aux_loss")]
    layers += [value for name, value in figures.items() if name.endswith("layer_02/aux_loss")]
    assert figures["router/aux_loss"] == pytest.approx(sum(layers))
    assert figures["router/max_load"] >= 1.0
