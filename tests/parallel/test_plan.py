"""Plans that cannot run are refused, with the rule, the values and the nearest plan that fits."""

import dataclasses

import pytest

from qwen_core.config.parallel import Parallel
from qwen_core.errors import RecipeError
from qwen_core.parallel.plan import Cluster, Spread, Work, check, nearest_plan
from tests.parallel.tiny import tiny_config

MODEL = tiny_config(
    num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864, vocab_size=151_936
)
SPARSE = tiny_config(
    model_type="qwen3_moe",
    num_hidden_layers=8,
    num_attention_heads=16,
    num_key_value_heads=4,
    num_experts=60,
    num_experts_per_tok=4,
    moe_intermediate_size=1404,
)
WORK = Work("pretrain", micro_batch_size=1, global_batch_size=64)
NEAREST = "The nearest plan that fits: "


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        (
            Spread(num_workers=8, tensor=4, zero_stage=1),
            "parallel.tensor (4) must divide model.num_attention_heads (14)\n"
            f"{NEAREST}parallel.num_workers=8, parallel.pipeline=1, parallel.tensor=2",
        ),
        (
            Spread(num_workers=7, tensor=7, zero_stage=1),
            "parallel.tensor (7) must divide model.vocab_size (151936)\n"
            "parallel.tensor (7) must divide model.intermediate_size (4864)\n"
            "parallel.tensor (7) must divide model.num_key_value_heads (2) or be a multiple of it: each worker has "
            "whole key heads, or shares one\n"
            f"{NEAREST}parallel.num_workers=6, parallel.pipeline=1, parallel.tensor=2, pretrain.global_batch_size=63",
        ),
        (
            Spread(num_workers=6, tensor=2, pipeline=2, zero_stage=1),
            "parallel.num_workers (6) must be a multiple of parallel.pipeline x parallel.tensor (2 x 2 = 4): each copy "
            "of the model takes so many workers\n"
            f"{NEAREST}parallel.num_workers=6, parallel.pipeline=3, parallel.tensor=2",
        ),
        (
            Spread(num_workers=32, pipeline=32, zero_stage=1),
            "parallel.pipeline (32) must not be more than model.num_hidden_layers (24): each stage needs a layer\n"
            f"{NEAREST}parallel.num_workers=32, parallel.pipeline=16, parallel.tensor=1",
        ),
        (
            Spread(num_workers=8, tensor=2, pipeline=2),
            "parallel.zero_stage (3) must be 0 or 1 with parallel.pipeline (2) or parallel.tensor (2): the stages keep "
            "gradients and weights between micro-batches\n"
            f"{NEAREST}parallel.num_workers=8, parallel.pipeline=2, parallel.tensor=2, parallel.zero_stage=1",
        ),
        (
            Spread(num_workers=4, sequence_parallel=True),
            "parallel.sequence_parallel splits between the workers of parallel.tensor, which is 1; set it to false\n"
            f"{NEAREST}parallel.num_workers=4, parallel.pipeline=1, parallel.tensor=1, "
            "parallel.sequence_parallel=false",
        ),
        (
            Spread(num_workers=4, pipeline=2, zero_stage=1, offload_optimizer="cpu"),
            "parallel.offload_optimizer (cpu) needs parallel.zero_stage 1 or more and neither parallel.pipeline nor "
            "parallel.tensor; zero_stage is 1, pipeline x tensor 2 x 1\n"
            f"{NEAREST}parallel.num_workers=4, parallel.pipeline=1, parallel.tensor=1, parallel.zero_stage=3",
        ),
        (
            Spread(num_workers=4, zero_stage=2, offload_parameters="nvme"),
            "parallel.offload_parameters (nvme) needs parallel.zero_stage 3 or more and neither parallel.pipeline nor "
            "parallel.tensor; zero_stage is 2, pipeline x tensor 1 x 1\n"
            "parallel.nvme_path must name a folder on a local disk where something is offloaded to nvme",
        ),
        (Spread(num_workers=4, expert=2), "parallel.expert is 2, but the model has no experts; set it to 1"),
        (
            Spread(num_workers=3),
            "pretrain.global_batch_size (64) must be a multiple of pretrain.micro_batch_size x the shares that a batch "
            "is dealt out to (1 x 3 = 3); the nearest is 63\n"
            f"{NEAREST}parallel.num_workers=3, parallel.pipeline=1, parallel.tensor=1, pretrain.global_batch_size=63",
        ),
        (
            Spread(num_workers=64),
            "pretrain needs 64 CPUs (parallel.num_workers=64), the Ray cluster has 32; lower parallel.num_workers or "
            "add nodes\n"
            f"{NEAREST}parallel.num_workers=32, parallel.pipeline=1, parallel.tensor=1",
        ),
        (
            Spread(num_workers=4, use_gpu=True),
            "pretrain needs 4 GPUs (parallel.num_workers=4), the Ray cluster has 2; lower parallel.num_workers or add "
            "nodes\n"
            f"{NEAREST}parallel.num_workers=2, parallel.pipeline=1, parallel.tensor=1",
        ),
    ],
)
def test_broken_rules_are_told(spread, message):
    with pytest.raises(RecipeError) as error:
        check(MODEL, spread, WORK, Cluster(cpus=32, gpus=2))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        (
            Spread(num_workers=8, tensor=8, zero_stage=1),
            "parallel.tensor (8) must divide model.moe_intermediate_size (1404)\n"
            f"{NEAREST}parallel.num_workers=8, parallel.pipeline=1, parallel.tensor=4",
        ),
        (
            Spread(num_workers=16, expert=16),
            "parallel.expert (16) must divide model.num_experts (60)",
        ),
        (Spread(num_workers=10, expert=4), "parallel.expert (4) must divide parallel.num_workers (10)"),
        (
            Spread(num_workers=4, expert=2, tensor=2, zero_stage=1),
            "parallel.expert (2) goes with ZeRO alone: parallel.pipeline is 1, parallel.tensor 2, which splits inside "
            "each expert; set one of them to 1\n"
            f"{NEAREST}parallel.num_workers=4, parallel.pipeline=1, parallel.tensor=1",
        ),
    ],
)
def test_broken_rules_of_experts_are_told(spread, message):
    with pytest.raises(RecipeError) as error:
        check(SPARSE, spread, dataclasses.replace(WORK, global_batch_size=80))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": "muon"},
            "pretrain.optimizer (muon) needs whole matrices, which parallel.tensor (2) splits; take adamw, or "
            "parallel.pipeline instead of tensor\n"
            f"{NEAREST}parallel.num_workers=4, parallel.pipeline=2, parallel.tensor=1",
        ),
        (
            {"has_adapters": True},
            "pretrain trains LoRA adapters, which parallel.pipeline (2) and parallel.tensor (2) do not know; set both "
            "to 1\n"
            f"{NEAREST}parallel.num_workers=4, parallel.pipeline=1, parallel.tensor=1",
        ),
        (
            {"compile": True},
            "pretrain.compile is on, but layers that are spread by parallel.pipeline (2) or parallel.tensor (2) are "
            "not compiled; set it to false\n"
            f"{NEAREST}parallel.num_workers=4, parallel.pipeline=1, parallel.tensor=1",
        ),
        (
            {"batch_ramp_start": 3, "micro_batch_size": 4},
            "pretrain.batch_ramp_start (3) must be a multiple of pretrain.micro_batch_size x the shares that a batch "
            "is dealt out to (4 x 1 = 4); the nearest is 4\n"
            f"{NEAREST}parallel.num_workers=4, parallel.pipeline=2, parallel.tensor=2, pretrain.batch_ramp_start=4",
        ),
    ],
)
def test_work_that_a_plan_cannot_do_is_told(changes, message):
    spread = Spread(num_workers=4, tensor=2, pipeline=2, zero_stage=1)
    with pytest.raises(RecipeError) as error:
        check(MODEL, spread, dataclasses.replace(WORK, **changes))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "spread",
    [
        Spread(num_workers=1),
        Spread(num_workers=4, zero_stage=3, offload_optimizer="nvme", offload_parameters="cpu", nvme_path="/local"),
        Spread(num_workers=8, tensor=2, pipeline=4, zero_stage=1, sequence_parallel=True),
        Spread(num_workers=24, pipeline=24, zero_stage=0),
    ],
)
def test_plan_that_can_run_is_not_refused(spread):
    check(MODEL, spread, WORK)


def test_more_workers_than_key_heads_may_share_them():
    config = tiny_config(num_attention_heads=16, num_key_value_heads=2, intermediate_size=64)
    check(config, Spread(num_workers=8, tensor=8, zero_stage=1), WORK)


def test_no_plan_is_told_where_nothing_fits():
    assert nearest_plan(MODEL, Spread(num_workers=4, expert=3), WORK, Cluster()) is None


def test_section_and_spread_have_the_same_words():
    section = Parallel(num_workers=8, tensor=2, pipeline=2, zero_stage=1)
    given = {field.name: getattr(section, field.name) for field in dataclasses.fields(Spread)}
    spread = Spread(**given)
    assert spread.data == 2
    assert spread.is_three_dimensional and section.is_three_dimensional
