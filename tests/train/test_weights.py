"""Weights by name, from a seed or a folder: those that the whole model would have."""

import pickle

import pytest
import torch

from qwen_core.errors import ArtifactError
from qwen_core.model import CausalLM, ModelConfig, initialise, save_pretrained
from qwen_core.train.weights import FolderWeights, FreshWeights, empty_model

DENSE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES = {
    "qwen3": {},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3_moe": SPARSE,
    "qwen2_moe": SPARSE | {"shared_expert_intermediate_size": 24},
}


def whole(family):
    model = CausalLM(ModelConfig(**DENSE, model_type=family, **FAMILIES[family]))
    initialise(model, 3)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_shard_bytes", [10_000, 10**9])
def test_each_parameter_is_that_of_the_whole_model(tmp_path, family, max_shard_bytes):
    model = whole(family)
    save_pretrained(model.config, model.state_dict(), tmp_path, 0, 0, max_shard_bytes=max_shard_bytes)
    read = FolderWeights(model.config, str(tmp_path))
    read("model.norm.weight")
    fresh, read = (pickle.loads(pickle.dumps(source)) for source in (FreshWeights(model.config, 3), read))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert torch.equal(read(name), parameter) and torch.equal(fresh(name), parameter), name
    assert all(parameter.is_meta for parameter in empty_model(model.config).parameters())


def test_what_a_folder_lacks_is_told(tmp_path):
    model = whole("qwen3")
    save_pretrained(model.config, model.state_dict(), tmp_path, 0, 0)
    with pytest.raises(ArtifactError, match=r"has no tensor model.x; copy the model folder again"):
        FolderWeights(model.config, str(tmp_path))("model.x")
