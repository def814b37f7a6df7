"""The model equals transformers' classes: logits and gradients, both directions, padded and packed, every family."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from qwen_core.model import IGNORE, CausalLM, ModelConfig, RopeScaling, initialise, load_pretrained, save_pretrained

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0}
FAMILIES = {
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-yarn": ("Qwen3", {"head_dim": 16, "rope_parameters": YARN | {"attention_factor": 1.3}}),
    "qwen2_moe": ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 40, "mlp_only_layers": [0]}),
    "qwen2_moe-step": ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 40, "decoder_sparse_step": 2}),
    "qwen3_moe": ("Qwen3Moe", EXPERTS | {"head_dim": 16, "norm_topk_prob": True}),
    "qwen3_moe-tied": ("Qwen3Moe", EXPERTS | {"head_dim": 16, "tie_word_embeddings": True}),
}


def _reference(name):
    family, extra = FAMILIES[name]
    rope = {"rope_type": "default", "rope_theta": 10_000.0} | extra.get("rope_parameters", {})
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | extra | {"rope_parameters": rope})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():  # its biases start at 0 and its norms at 1: nothing would be compared
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.mul_(5)
    return model


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request, tmp_path_factory):
    """A reference with random weights, and our model loaded from its folder, which is sharded."""
    reference = _reference(request.param)
    folder = tmp_path_factory.mktemp("hf")
    reference.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").exists()
    return reference, load_pretrained(folder).eval()


def _ids(seed, batch, length):
    return torch.randint(0, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_logits_and_gradients_equal_the_reference(pair):
    reference, ours = pair
    ids = _ids(1, 3, 40)
    assert torch.allclose(ours(ids), reference(ids).logits, atol=1e-5)
    reference(ids, labels=ids).loss.backward()
    ours(ids, labels=ids)[:, 1:].mean().backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    assert {name for name, _ in ours.named_parameters()} == set(gradients)
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], atol=1e-5), name
        assert parameter.grad.abs().max() > 1e-6, name
    reference.zero_grad()
    ours.zero_grad()


def test_batch_padded_on_the_right_equals_the_reference(pair):
    reference, ours = pair
    ids = _ids(2, 2, 17)
    attended = torch.ones_like(ids)
    attended[0, 12:] = 0
    theirs = reference(ids, attention_mask=attended).logits
    for segments in (None, attended - 1):
        logits = ours(ids, segment_ids=segments)
        assert torch.isfinite(logits).all()
        assert torch.allclose(logits[attended == 1], theirs[attended == 1], atol=1e-5)


def test_packed_documents_equal_each_alone_in_the_reference(pair):
    reference, ours = pair
    parts = [_ids(3 + length, 1, length) for length in (5, 9, 3, 17)]
    segments = torch.tensor([[0] * 5 + [1] * 9 + [2] * 3, [7] * 17])
    packed = torch.cat((torch.cat(parts[:3], 1), parts[3]))
    alone = torch.cat([reference(part).logits for part in parts], 1).view(2, 17, -1)
    assert torch.allclose(ours(packed, segment_ids=segments), alone, atol=1e-5)


def test_saved_folder_opens_in_transformers(pair, tmp_path):
    _, ours = pair
    save_pretrained(ours.config, ours.state_dict(), tmp_path, eos_token_id=2, pad_token_id=0, max_shard_bytes=20_000)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(theirs).__name__ == theirs.config.architectures[0]
    ids = _ids(5, 2, 40)
    assert torch.allclose(ours(ids), theirs(ids).logits, atol=1e-5)
    assert theirs.config.eos_token_id == 2 and theirs.generation_config.eos_token_id == [2, 0]
    again = load_pretrained(tmp_path)
    assert again.config == ours.config
    assert all((again.state_dict()[name] == tensor).all() for name, tensor in ours.state_dict().items())


def test_ignored_labels_cost_nothing(pair):
    _, ours = pair
    ids = _ids(4, 2, 10)
    labels = ids.clone()
    labels[:, 4] = IGNORE
    losses = ours(ids, labels=labels)
    assert losses.shape == (2, 10) and losses.dtype == torch.float32
    assert (losses[:, 0] == 0).all() and (losses[:, 4] == 0).all() and (losses[:, 5] > 0).all()
    plain = torch.nn.functional.cross_entropy(ours(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    assert torch.allclose(losses[:, 5:], plain.view(2, 9)[:, 4:], atol=1e-5)


@pytest.mark.parametrize("policy", ["full", "every_2"])
def test_checkpointed_layers_give_the_same_gradients(policy):
    config = ModelConfig(**SIZES, model_type="qwen3", rope_scaling=RopeScaling(2.0, 32))
    grads = []
    for chosen in ("none", policy):
        model = CausalLM(config, gradient_checkpointing=chosen)
        initialise(model, seed=5)
        model(_ids(6, 2, 16), labels=_ids(6, 2, 16)).sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
