"""The model section: each wrong architecture is refused with its values and the way out."""

import pytest

from qwen_core.config import bundled_recipes, load_recipe
from qwen_core.config.model import Model
from qwen_core.errors import RecipeError

SPARSE = ["model_type=qwen3_moe", "num_experts=8", "num_experts_per_tok=2", "moe_intermediate_size=64"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["num_key_value_heads=3"], "num_attention_heads (4) must be a multiple of num_key_value_heads (3)"),
        (["head_dim=33"], "head_dim (33) must be even"),
        (["num_experts=8", "num_experts_per_tok=2"], "'qwen3' is dense, but num_experts, num_experts_per_tok are set"),
        (["init=mup"], "set tie_word_embeddings to false"),
        (["router_z_loss_coef=0.1"], "'qwen3' is dense, but router_z_loss_coef is set"),
        (["model_type=qwen3_moe", "num_experts=8"], "needs num_experts_per_tok, moe_intermediate_size"),
        ([*SPARSE, "num_experts_per_tok=9"], "num_experts_per_tok (9) is more than num_experts (8)"),
        ([*SPARSE, "model_type=qwen2_moe"], "qwen2_moe needs a shared expert"),
        ([*SPARSE, "shared_expert_intermediate_size=64"], "qwen3_moe has none"),
        ([*SPARSE, "mlp_only_layers=[1, 7]"], "mlp_only_layers [7] are not among the layers 0 to 3"),
        ([*SPARSE, "decoder_sparse_step=5"], "no layer is sparse"),
        (["rope_scaling={factor: 2, original_max_position_embeddings: 256}"], "more than rope_scaling stretches to"),
        (["rope_scaling={factor: 0.5, original_max_position_embeddings: 9000}"], "greater than or equal to 1"),
    ],
)
def test_wrong_architecture_is_refused(overrides, words):
    with pytest.raises(RecipeError) as caught:
        load_recipe("demo", [f"model.{override}" for override in overrides])
    assert words in str(caught.value)


def test_architecture_is_what_the_model_takes():
    from qwen_core.model.config import ModelConfig

    recipe = load_recipe("demo", [f"model.{override}" for override in SPARSE])
    config = ModelConfig(vocab_size=100, **recipe.model.architecture())
    assert (config.num_experts, config.is_sparse(0)) == (8, True)
    scaled = Model(rope_scaling={"factor": 2.0, "original_max_position_embeddings": 1024}).architecture()
    assert ModelConfig(vocab_size=100, **scaled).rope_scaling.factor == 2.0


def test_recipes_of_published_models_wait_for_inputs_only():
    names = [name for name in bundled_recipes() if name.startswith("qwen")]
    assert len(names) == 9
    for name in names:
        recipe = load_recipe(name)
        assert recipe.ingest.inputs == ()
        assert recipe.model.vocab_size >= recipe.tokenizer.vocab_size
        assert recipe.model.max_position_embeddings >= recipe.pack.max_seq_len
        assert recipe.release.model_name == name
