"""Fresh weights: each method's spread, and one stream for each parameter."""

import pytest
import torch

from qwen_core.errors import RecipeError
from qwen_core.model import CausalLM, ModelConfig, initialise
from qwen_core.model.initialise import initial_value, mup_learning_rate_scales

CONFIG = ModelConfig(200, 128, 256, 8, 4, 2, tie_word_embeddings=False, model_type="qwen2")
SPARSE = ModelConfig(
    200, 128, 256, 8, 4, 2, tie_word_embeddings=False, model_type="qwen2_moe", num_experts=4, num_experts_per_tok=2,
    moe_intermediate_size=96, shared_expert_intermediate_size=64,
)  # fmt: skip


def _std(name, shape, method, config=CONFIG, **kwargs):
    return initial_value(name, shape, config, method, seed=1, **kwargs).std().item()


@pytest.mark.parametrize(
    ("method", "name", "shape", "std"),
    [
        ("normal", "model.layers.0.mlp.up_proj.weight", (256, 128), 0.02),
        ("normal", "model.layers.0.mlp.down_proj.weight", (128, 256), 0.02 / 4),
        ("normal", "model.layers.0.self_attn.o_proj.weight", (128, 128), 0.02 / 4),
        ("xavier", "model.layers.0.mlp.up_proj.weight", (256, 128), (2 / 384) ** 0.5),
        ("kaiming", "model.layers.0.mlp.gate_proj.weight", (256, 128), (2 / 128) ** 0.5),
        ("kaiming", "model.layers.0.mlp.up_proj.weight", (256, 128), (1 / 128) ** 0.5),
        ("mup", "model.layers.0.mlp.up_proj.weight", (256, 128), 0.02 / 2**0.5),
        ("mup", "model.layers.0.mlp.down_proj.weight", (128, 256), 0.02 / 2**0.5 / 4),
        ("mup", "lm_head.weight", (200, 128), 0.02 / 2),
        ("mup", "model.layers.0.mlp.gate.weight", (60, 128), 0.02 / 2),
        ("xavier", "model.embed_tokens.weight", (200, 128), 0.02),
        ("mup", "model.embed_tokens.weight", (200, 128), 0.02),
    ],
)
def test_spread_follows_the_method(method, name, shape, std):
    """Worked by hand, for 8 layers (1 / sqrt(2 x 8) = 1 / 4) of width 128 over a base of 64 (m = 2)."""
    assert _std(name, shape, method, base_width=64) == pytest.approx(std, rel=0.03)


def test_stacked_experts_have_the_fan_in_of_one_expert():
    shape = (4, 192, 128)
    assert _std("model.layers.0.mlp.experts.gate_up_proj", shape, "xavier", SPARSE) == pytest.approx(
        (2 / (96 + 128)) ** 0.5, rel=0.03
    )
    assert _std("model.layers.0.mlp.experts.down_proj", (4, 128, 96), "kaiming", SPARSE) == pytest.approx(
        (1 / 96) ** 0.5, rel=0.03
    )


def test_a_worker_with_some_experts_draws_the_values_of_one_process():
    name = "model.layers.1.mlp.experts.gate_up_proj"
    whole = initial_value(name, (4, 192, 128), SPARSE, "normal", seed=3)
    part = initial_value(name, (2, 192, 128), SPARSE, "normal", seed=3, first_expert=2)
    assert torch.equal(whole[2:], part)
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("method", ["normal", "xavier", "kaiming", "mup"])
def test_a_model_is_a_function_of_seed_and_method(method):
    models = []
    for seed in (1, 1, 2):
        model = CausalLM(SPARSE)
        initialise(model, seed, method)
        models.append(model.state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(models[0][name], models[2][name])
    assert torch.equal(models[0][name], initial_value(name, (128, 128), SPARSE, method, 1))
    assert (models[0]["model.layers.0.self_attn.q_proj.bias"] == 0).all()
    assert (models[0]["model.layers.0.input_layernorm.weight"] == 1).all()


def test_two_parameters_of_one_shape_differ():
    first = initial_value("model.layers.0.mlp.up_proj.weight", (256, 128), CONFIG, "normal", 1)
    second = initial_value("model.layers.1.mlp.up_proj.weight", (256, 128), CONFIG, "normal", 1)
    assert not torch.equal(first, second)


def test_mup_learning_rates_fall_with_width_for_matrices_alone():
    scales = mup_learning_rate_scales(SPARSE, base_width=32)
    assert scales["model.embed_tokens.weight"] == 1 and scales["model.norm.weight"] == 1
    assert scales["model.layers.0.self_attn.q_proj.bias"] == 1
    assert scales["lm_head.weight"] == 0.25 and scales["model.layers.0.mlp.experts.down_proj"] == 0.25


def test_mup_activations_keep_their_size_over_width():
    """Outputs of a layer's matrices and logits of a fresh model must not grow with width."""
    sizes = {}
    for width in (64, 512):
        config = ModelConfig(100, width, 2 * width, 2, width // 32, 1, 32, tie_word_embeddings=False)
        model = CausalLM(config).eval()
        initialise(model, 1, "mup", base_width=64)
        with torch.no_grad():
            ids = torch.arange(64)[None]
            sizes[width] = (model.model(ids).std().item(), model(ids).std().item())
    assert sizes[512][0] == pytest.approx(sizes[64][0], rel=0.2)
    assert sizes[512][1] < sizes[64][1] / 2, "a fresh head's logits shrink as 1 / sqrt(width)"


def test_unknown_method_and_a_tied_head_under_mup_are_refused():
    with pytest.raises(RecipeError, match="'orthogonal'; choose one of normal, xavier, kaiming, mup"):
        initial_value("lm_head.weight", (2, 2), CONFIG, "orthogonal", 1)
    with pytest.raises(RecipeError, match="set tie_word_embeddings to false"):
        initialise(CausalLM(ModelConfig(20, 8, 8, 1, 2, 1)), 1, "mup")
