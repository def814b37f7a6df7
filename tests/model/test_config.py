"""config.json of four families, of transformers 5 and of those before it; what is not computed is refused."""

import json

import pytest
import torch
import transformers

from qwen_core.errors import ArtifactError, RecipeError
from qwen_core.model import CausalLM, ModelConfig, RopeScaling
from qwen_core.model.rotary import inverse_frequencies, rotary_angles

SIZES = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
QWEN2 = SIZES | {"model_type": "qwen2", "max_position_embeddings": 32_768}


def _read(tmp_path, tree):
    (tmp_path / "config.json").write_text(json.dumps(tree))
    return ModelConfig.from_json(tmp_path / "config.json")


def test_published_file_of_transformers_4_is_read(tmp_path):
    tree = QWEN2 | {
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768},
        "sliding_window": 32_768,
        "use_sliding_window": False,
        "max_window_layers": 21,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": True,
    }
    config = _read(tmp_path, tree)
    assert (config.head_dim, config.rope_theta, config.tie_word_embeddings) == (64, 1_000_000.0, True)
    assert config.rope_scaling == RopeScaling(4.0, 32_768)
    assert config.has_qkv_bias and not config.has_qk_norm


def test_file_of_transformers_5_is_read(tmp_path):
    rope = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16_384, "rope_theta": 5e5}
    config = _read(tmp_path, QWEN2 | {"rope_parameters": rope, "layer_types": ["full_attention"] * 24})
    assert config.rope_theta == 5e5 and config.rope_scaling == RopeScaling(2.0, 16_384)
    assert not config.tie_word_embeddings, "transformers' default where the file is silent"


def test_experts_are_counted_under_both_names(tmp_path):
    tree = SIZES | {"model_type": "qwen3_moe", "head_dim": 64, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    assert _read(tmp_path, tree | {"num_experts": 16}).num_experts == 16
    assert _read(tmp_path, tree | {"num_local_experts": 16}).num_experts == 16
    config = _read(tmp_path, tree | {"num_experts": 16, "mlp_only_layers": [3], "decoder_sparse_step": 2})
    assert [layer for layer in range(8) if config.is_sparse(layer)] == [1, 5, 7]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["sliding_attention"] * 24}, "layer_types"),
        ({"attention_dropout": 0.1}, r"attention_dropout is 0\.1, only 0\.0 is computed"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'.*'default' and 'yarn'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 0.7}}, "'mscale': 0.7"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias is True"),
        ({"model_type": "qwen2_moe", "qkv_bias": False}, "qkv_bias is False"),
        ({"num_key_value_heads": 3}, r"num_attention_heads \(14\) must be a multiple of num_key_value_heads \(3\)"),
        ({"hidden_size": None}, "hidden_size"),
        ({"model_type": "qwen3", "head_dim": 63}, r"head_dim \(63\) must be even"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, change, told):
    with pytest.raises(ArtifactError, match=told):
        _read(tmp_path, QWEN2 | change)


def test_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", ')
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        ModelConfig.from_json(tmp_path / "config.json")


def test_experts_in_a_dense_family_are_refused():
    with pytest.raises(RecipeError, match="'qwen3' is dense"):
        ModelConfig(**SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
    with pytest.raises(RecipeError, match="num_experts_per_tok is 5"):
        ModelConfig(**SIZES, model_type="qwen3_moe", num_experts=4, num_experts_per_tok=5, moe_intermediate_size=8)
    with pytest.raises(RecipeError, match="needs a shared"):
        ModelConfig(**SIZES, model_type="qwen2_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)


@pytest.mark.parametrize("factor", [1.0, 4.0, 40.0])
@pytest.mark.parametrize("original", [64, 4096])
def test_yarn_has_the_frequencies_of_transformers(factor, original):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, "rope_theta": 1e4}
    theirs, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](transformers.Qwen2Config(**SIZES, rope_parameters=rope))
    ours = inverse_frequencies(ModelConfig(**SIZES, rope_theta=1e4, rope_scaling=RopeScaling(factor, original)))
    assert torch.allclose(ours[0], theirs, rtol=1e-6)
    assert ours[1] == pytest.approx(attention_factor)


def test_angles_of_far_positions_keep_their_digits_in_bf16():
    config = ModelConfig(**SIZES)
    positions = torch.tensor([[100_000, 100_001]])
    cosines, _ = rotary_angles(positions, config, torch.bfloat16)
    assert cosines.dtype == torch.bfloat16
    assert torch.allclose(cosines[0, :, 0, 0].float(), positions[0].double().cos().float(), atol=0.02)


def test_parameters_of_published_models_are_counted_exactly():
    """Qwen2.5-0.5B has 494,032,768 parameters, Qwen1.5-MoE-A2.7B 14,315,784,192, by the sizes of their files."""
    with torch.device("meta"):
        small = CausalLM(ModelConfig(**QWEN2))
        sparse = CausalLM(
            ModelConfig(
                151_936,
                2048,
                5632,
                24,
                16,
                16,
                tie_word_embeddings=False,
                model_type="qwen2_moe",
                num_experts=60,
                num_experts_per_tok=4,
                moe_intermediate_size=1408,
                shared_expert_intermediate_size=5632,
            )
        )
    assert sum(parameter.numel() for parameter in small.parameters()) == 494_032_768
    assert sum(parameter.numel() for parameter in sparse.parameters()) == 14_315_784_192
