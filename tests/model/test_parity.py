"""The model equals transformers' Qwen3: logits, losses, gradients, both directions, padded and packed."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from qwen_core.model import IGNORE, CausalLM, ModelConfig, initialise, load_pretrained, save_pretrained

FIGURES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rope_theta": 10_000.0,
}


def _reference(tie: bool) -> Qwen3ForCausalLM:
    figures = dict(FIGURES)
    theta = figures.pop("rope_theta")
    torch.manual_seed(0)
    config = Qwen3Config(
        **figures, rope_parameters={"rope_type": "default", "rope_theta": theta}, tie_word_embeddings=tie
    )
    return Qwen3ForCausalLM(config).eval()


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def pair(request, tmp_path):
    """A reference with random weights and our model loaded from its folder."""
    reference = _reference(request.param)
    reference.save_pretrained(tmp_path / "hf")
    return reference, load_pretrained(tmp_path / "hf").eval()


def test_logits_and_gradients_equal_the_reference(pair):
    reference, ours = pair
    ids = torch.randint(0, 97, (3, 20), generator=torch.Generator().manual_seed(1))
    theirs = reference(ids).logits
    assert torch.allclose(ours(ids), theirs, atol=1e-5)
    reference(ids, labels=ids).loss.backward()
    ours(ids, labels=ids)[:, 1:].mean().backward()
    gradients = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name].grad, atol=1e-5), name


def test_padding_on_the_right_changes_nothing_before_it(pair):
    reference, ours = pair
    ids = torch.randint(0, 97, (1, 12), generator=torch.Generator().manual_seed(2))
    padded = torch.cat((ids, torch.zeros(1, 5, dtype=torch.long)), 1)
    assert torch.allclose(ours(padded)[:, :12], reference(ids).logits, atol=1e-5)


def test_packed_documents_do_not_see_each_other(pair):
    reference, ours = pair
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randint(0, 97, (1, length), generator=generator) for length in (5, 9, 3)]
    segments = torch.tensor([[0] * 5 + [1] * 9 + [2] * 3])
    alone = torch.cat([reference(part).logits for part in parts], 1)
    assert torch.allclose(ours(torch.cat(parts, 1), segment_ids=segments), alone, atol=1e-5)


def test_ignored_labels_cost_nothing_and_chunks_change_nothing(pair, monkeypatch):
    _, ours = pair
    ids = torch.randint(0, 97, (2, 10), generator=torch.Generator().manual_seed(4))
    labels = ids.clone()
    labels[:, 4] = IGNORE
    whole = ours(ids, labels=labels)
    assert whole.shape == (2, 10) and (whole[:, 0] == 0).all() and (whole[:, 4] == 0).all()
    assert (whole[:, 5] > 0).all()
    monkeypatch.setattr("qwen_core.model.decoder._LOSS_CHUNK_TOKENS", 7)
    chunked = ours(ids, labels=labels)
    assert torch.allclose(whole, chunked, atol=1e-6)


def test_saved_folder_opens_in_transformers(tmp_path):
    model = CausalLM(ModelConfig(**FIGURES)).eval()
    initialise(model, seed=5)
    save_pretrained(model.config, model.state_dict(), tmp_path, eos_token_id=2, pad_token_id=0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.arange(12)[None]
    assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-5)
    assert theirs.config.eos_token_id == 2
