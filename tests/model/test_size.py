"""Sizes against published counts and hand-worked cases."""

import dataclasses

import pytest

from qwen_core.config import load_recipe
from qwen_core.model.config import ModelConfig
from qwen_core.model.memory import Plan, activation_bytes_per_token, alternatives, memory_per_gpu
from qwen_core.model.size import count_parameters, flops_per_token, layer_parameters, tokens_per_second

PUBLISHED = {
    # recipe: (parameters of the published safetensors, active ones in billions, without embeddings in billions)
    "qwen2.5-0.5b": (494_032_768, 0.494, 0.36),
    "qwen2.5-1.5b": (1_543_714_304, 1.54, 1.31),
    "qwen2.5-7b": (7_615_616_512, 7.62, 6.53),
    "qwen2.5-72b": (72_706_203_648, 72.7, 70.2),
    "qwen3-0.6b": (596_049_920, 0.596, 0.44),
    "qwen3-1.7b": (1_720_574_976, 1.72, 1.41),
    "qwen3-8b": (8_190_735_360, 8.19, 6.95),
    "qwen1.5-moe-a2.7b": (14_315_784_192, 2.69, 13.7),
    "qwen3-30b-a3b": (30_532_122_624, 3.35, 29.9),
}
TINY = ModelConfig(
    vocab_size=100,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    tie_word_embeddings=False,
)
SPARSE = dataclasses.replace(
    TINY, model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=6
)


def config_of(name: str) -> ModelConfig:
    section = load_recipe(name).model
    return ModelConfig(vocab_size=section.vocab_size or 0, **section.architecture())


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_has_the_published_number_of_parameters(name):
    counts = count_parameters(config_of(name))
    total, active, without_embeddings = PUBLISHED[name]
    assert counts.total == total
    assert counts.active / 1e9 == pytest.approx(active, rel=0.005)
    assert counts.without_embeddings / 1e9 == pytest.approx(without_embeddings, rel=0.01)
    assert sum(counts.by_part().values()) == total


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_fits_the_card_it_is_laid_out_for(name):
    recipe = load_recipe(name)
    spread, batch = recipe.parallel, recipe.pretrain
    shares = spread.num_workers // (spread.tensor * spread.pipeline)
    plan = Plan(
        gpus=spread.num_workers,
        zero_stage=spread.zero_stage,
        tensor=spread.tensor,
        pipeline=spread.pipeline,
        expert=spread.expert,
        sequence_parallel=spread.sequence_parallel,
        micro_batch_size=batch.micro_batch_size,
        seq_len=recipe.pack.max_seq_len,
        passes=batch.global_batch_size // (batch.micro_batch_size * shares),
        checkpointing=recipe.model.gradient_checkpointing,
    )
    assert memory_per_gpu(config_of(name), plan).fits(80e9)
    for stage in (recipe.pretrain, recipe.sft, recipe.dpo):
        assert stage.global_batch_size % (stage.micro_batch_size * shares) == 0
    tokens = batch.max_steps * batch.global_batch_size * recipe.pack.max_seq_len
    assert tokens / count_parameters(config_of(name)).total == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("config", [TINY, SPARSE], ids=["dense", "sparse"])
def test_counts_are_those_of_the_model_itself(config):
    import torch

    from qwen_core.model import CausalLM

    with torch.device("meta"):
        built = CausalLM(config)
    assert count_parameters(config).total == sum(parameter.numel() for parameter in built.parameters())


def test_parts_of_a_layer_by_hand():
    """q and o: 8 x 16 each; k and v: 8 x 8 each; MLP 3 x 8 x 16; norms 2 x 8 and 2 x 4.

    Sparse: gate 8 x 4; an expert 3 x 8 x 6.
    """
    dense, sparse = layer_parameters(TINY, 0), layer_parameters(SPARSE, 0)
    assert (dense.attention, dense.mlp, dense.norms) == (384, 384, 24)
    assert (sparse.attention, sparse.router, sparse.expert, sparse.norms) == (384, 32, 144, 24)
    assert sparse.total == 384 + 24 + 32 + 4 * 144
    assert sparse.active == 384 + 24 + 32 + 2 * 144


def test_flops_by_hand():
    """Weights that multiply: 4 layers x (384 + 384) + head 800 = 3,872; attention 12 x 4 x 4 x 4 x 10 = 7,680."""
    assert flops_per_token(TINY, 10, is_causal=False) == 6 * 3872 + 7680
    assert flops_per_token(TINY, 10) == 6 * 3872 + 3840
    assert flops_per_token(dataclasses.replace(TINY, tie_word_embeddings=True), 10) == flops_per_token(TINY, 10)
    # sparse: 4 x (384 + 32 + 2 x 144) + 800 = 3,616
    assert flops_per_token(SPARSE, 10) == 6 * 3616 + 3840


def test_speed_by_hand():
    """Two GPUs of 1e9 at 50%: 1e9 operations a second over 27,072 a token."""
    assert tokens_per_second(TINY, 10, 2, 1e9, 0.5) == pytest.approx(1e9 / 27072)


def test_zero_stages_spread_what_the_paper_says():
    """2 + 2 + 12 bytes a parameter (arXiv 1910.02054, figure 1), over 4 GPUs from each stage on; summed in fp32: 4."""
    total = count_parameters(TINY).total
    for stage, (weights, gradients, states) in enumerate([(2, 2, 12), (2, 4, 3), (2, 1, 3), (0.5, 1, 3)]):
        memory = memory_per_gpu(TINY, Plan(gpus=4, zero_stage=stage))
        assert memory.weights == pytest.approx(weights * total)
        assert memory.gradients == pytest.approx(gradients * total)
        assert memory.optimizer == pytest.approx(states * total)
    offloaded = memory_per_gpu(TINY, Plan(gpus=4, zero_stage=3, offload_optimizer=True, offload_parameters=True))
    assert (offloaded.weights, offloaded.gradients, offloaded.optimizer) == (0, 0, 0)


def test_experts_are_spread_over_their_group():
    """Experts are 4 x 4 x 144 = 2,304 weights; over 2 of 4 GPUs half of them, whose states 2 GPUs share."""
    total = count_parameters(SPARSE).total
    memory = memory_per_gpu(SPARSE, Plan(gpus=4, zero_stage=1, expert=2))
    assert memory.weights == pytest.approx(2 * (total - 2304 + 1152))
    assert memory.optimizer == pytest.approx(12 * ((total - 2304) / 4 + 1152 / 2))


def test_pipeline_and_tensor_parallel_divide_the_layers():
    """Two stages: 2 layers of 792 and a table of 800 each, the last also the final norm of 8."""
    memory = memory_per_gpu(TINY, Plan(gpus=2, pipeline=2))
    assert memory.weights == 2 * (2 * 792 + 800 + 8)
    memory = memory_per_gpu(TINY, Plan(gpus=2, tensor=2))
    assert memory.weights == 2 * (4 * (768 / 2 + 24) + 2 * 800 / 2 + 8)


def test_activations_of_a_layer_by_hand():
    """Norms 2 x 8 x (4 + 2 + 2); attention 2 x (2 x 16 + 2 x 8); norms of heads 6 x 24; SwiGLU 4 x 2 x 16."""
    layer = layer_parameters(TINY, 0)
    outer, inner = 128, 96 + 144 + 128
    assert activation_bytes_per_token(TINY, layer, Plan()) == outer + inner
    assert activation_bytes_per_token(TINY, layer, Plan(tensor=2)) == outer + inner / 2
    assert activation_bytes_per_token(TINY, layer, Plan(tensor=2, sequence_parallel=True)) == (outer + inner) / 2


def test_checkpointing_keeps_the_inputs_and_one_layer():
    plan = Plan(seq_len=10, checkpointing=True)
    assert memory_per_gpu(TINY, plan).activations == 10 * (4 * 2 * 8 + 496)
    assert memory_per_gpu(TINY, Plan(seq_len=10)).activations == 10 * 4 * 496


def test_alternatives_divide_heads_layers_and_gpus():
    plans = alternatives(SPARSE, Plan(gpus=8, passes=4))
    assert [plan.zero_stage for plan in plans[:4]] == [0, 1, 2, 3]
    assert {plan.expert for plan in plans} == {1, 2, 4}
    assert max(plan.tensor for plan in plans) == 2  # two key heads
    assert all(plan.data * plan.tensor * plan.pipeline == 8 for plan in plans)
    assert all(plan.passes * plan.data == 32 for plan in plans)  # the same batch
