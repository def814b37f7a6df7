"""Weights by name are those of the whole model."""

import pytest
import torch

from qwen_core.errors import ArtifactError
from qwen_core.model import CausalLM, initialise, save_pretrained
from qwen_core.parallel.layout import HEAD
from qwen_core.parallel.sources import folder_source, fresh_source
from tests.parallel.tiny import tiny_config, tiny_model

SPARSE = {
    "model_type": "qwen2_moe",
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "mlp_only_layers": (0,),
}


@pytest.mark.parametrize("changes", [{}, SPARSE], ids=["dense", "sparse"])
def test_drawn_one_by_one_equal_to_a_whole_model(changes):
    config = tiny_config(**changes)
    model = CausalLM(config)
    initialise(model, 5, "xavier")
    source = fresh_source(config, 5, "xavier")
    for name, weight in model.named_parameters():
        assert torch.equal(source(name), weight), name


@pytest.mark.parametrize("changes", [{"tie_word_embeddings": True}, SPARSE], ids=["dense", "sparse"])
def test_read_one_by_one_equal_to_what_was_saved(changes, tmp_path):
    config = tiny_config(**changes)
    model = tiny_model(config)
    save_pretrained(config, model.state_dict(), tmp_path, max_shard_bytes=4096)
    source = folder_source(tmp_path, config)
    for name, weight in model.named_parameters():
        assert torch.equal(source(name), weight), name
    assert torch.equal(source(HEAD), model.lm_head.weight)


def test_tensor_that_is_missing_is_named(tmp_path):
    config = tiny_config()
    save_pretrained(config, tiny_model(config).state_dict(), tmp_path)
    with pytest.raises(ArtifactError, match=r"has no tensor model\.layers\.9\.mlp\.up_proj\.weight; copy"):
        folder_source(tmp_path, config)("model.layers.9.mlp.up_proj.weight")
