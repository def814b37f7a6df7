"""Generation: the cache changes nothing, stops are kept, seeds decide; initialisation; wrong folders."""

import json

import pytest
import torch

from qwen_core.errors import ArtifactError
from qwen_core.model import CausalLM, ModelConfig, Sampling, generate, initialise, load_pretrained, save_pretrained


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(50, 32, 48, 2, 4, 2, 16, 64, initializer_range=0.2)
    made = CausalLM(config).eval()
    initialise(made, seed=1)
    return made


def test_cached_generation_equals_recomputing_everything(model):
    ids = [3, 1, 4]
    expected = list(ids)
    for _ in range(8):
        expected.append(int(model(torch.tensor([expected]))[0, -1].argmax()))
    assert generate(model, ids, 8) == expected[3:]


def test_generation_ends_with_the_stop_token(model):
    free = generate(model, [3, 1, 4], 8)
    stop = free[-1]
    assert generate(model, [3, 1, 4], 8, stop_ids=[stop]) == free[: free.index(stop) + 1]


def test_sampling_follows_its_seed(model):
    first = generate(model, [3], 12, Sampling(1.5, seed=7))
    assert generate(model, [3], 12, Sampling(1.5, seed=7)) == first
    assert generate(model, [3], 12, Sampling(1.5, seed=8)) != first


def test_top_k_and_top_p_leave_only_the_likeliest(model):
    greedy = generate(model, [3], 12)
    assert generate(model, [3], 12, Sampling(5.0, top_k=1)) == greedy
    assert generate(model, [3], 12, Sampling(5.0, top_p=1e-9)) == greedy
    assert generate(model, [3], 12, Sampling(5.0)) != greedy


def test_repetition_penalty_forbids_what_was_said_when_it_is_large(model):
    new = generate(model, [3], 12, Sampling(repetition_penalty=1e9))
    assert len({3, *new}) == 13


def test_initialisation_scales_residual_outputs_down_with_depth(model):
    layer = model.model.layers[0]
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(0.2, rel=0.1)
    assert layer.mlp.down_proj.weight.std().item() == pytest.approx(0.2 / 4**0.5, rel=0.1)
    assert (layer.input_layernorm.weight == 1).all()


def test_folder_that_is_no_model_is_refused(tmp_path, model):
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ArtifactError, match="'llama'"):
        load_pretrained(tmp_path)
    save_pretrained(model.config, model.state_dict(), tmp_path)
    tree = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(tree | {"hidden_size": 64}))
    with pytest.raises(ArtifactError, match="do not fit"):
        load_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="never loaded"):
        load_pretrained(tmp_path)
