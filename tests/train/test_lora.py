"""Adapters: they begin as the base model, alone learn, merge into it, and PEFT reads them."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from qwen_core.errors import RecipeError
from qwen_core.model import CausalLM, ModelConfig, initialise, load_pretrained, save_pretrained
from qwen_core.parallel.optimisers import Optimisation, make_optimiser
from qwen_core.train.lora import Adapters, LoraLinear, add_adapters, merged, save_adapter
from qwen_core.train.weights import AdaptedWeights, FolderWeights, empty_model

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tiny(model_type="qwen3"):
    config = ModelConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        model_type=model_type,
        initializer_range=0.3,
    )
    model = CausalLM(config)
    initialise(model, 3)
    return model


def trained(model, adapters, steps=3):
    """Add adapters and train all that learns, on one sequence."""
    add_adapters(model, adapters, seed=5)
    optimiser = make_optimiser(model.named_parameters(), Optimisation(learning_rate=0.02, weight_decay=0.0))
    ids = torch.arange(40).view(2, 20)
    for _ in range(steps):
        model(ids, labels=ids).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    return model


IDS = torch.tensor([[5, 9, 2, 33, 60, 1, 7]])


def test_adapters_begin_as_the_base_model_and_alone_learn():
    base, model = tiny(), tiny()
    before = {name: value.clone() for name, value in model.named_parameters()}
    adapters = Adapters(4, 8.0, ALL)
    add_adapters(model, adapters, seed=5)
    assert torch.equal(base(IDS), model(IDS))
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(learning) == 2 * 7 * 2 and all("lora_" in name for name in learning)
    trained(model := tiny(), adapters)
    after = dict(model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(after[name].abs().sum() > 0 for name in learning)


@pytest.mark.parametrize("model_type", ["qwen3", "qwen2"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_merged_weights_and_peft_give_the_logits_of_the_trained_model(tmp_path, model_type, use_rslora):
    base = tiny(model_type)
    save_pretrained(base.config, base.state_dict(), tmp_path / "base", 0, 0)
    adapters = Adapters(4, 8.0, ALL, use_rslora=use_rslora)
    model = trained(tiny(model_type), adapters)
    expected = model(IDS)
    assert not torch.allclose(expected, base(IDS), atol=0.05)
    kept = {}
    state = dict(merged(model.named_parameters(), adapters, kept))
    assert set(state) == {name for name, _ in base.named_parameters()} and len(kept) == 28
    save_pretrained(base.config, state, tmp_path / "model", 0, 0)
    assert torch.allclose(load_pretrained(tmp_path / "model")(IDS), expected, atol=1e-5)
    save_adapter(kept, adapters, tmp_path / "adapter", str(tmp_path / "base"))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    assert torch.allclose(theirs(IDS).logits, expected, atol=1e-5)
    folded = theirs.merge_and_unload()
    assert torch.allclose(folded(IDS).logits, expected, atol=1e-5)


def test_first_values_depend_on_seed_and_name_alone_and_a_source_gives_them_to_a_model_without_data(tmp_path):
    adapters = Adapters(4, 8.0, ("q_proj", "down_proj"))
    model = tiny()
    save_pretrained(model.config, model.state_dict(), tmp_path, 0, 0)
    add_adapters(model, adapters, seed=5)
    source = AdaptedWeights(FolderWeights(model.config, str(tmp_path)), model.config, adapters, seed=5)
    empty = empty_model(model.config, adapters)
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in empty.named_parameters()} == learns
    for name, parameter in model.named_parameters():
        assert torch.equal(source(name), parameter), name
    other = tiny()
    add_adapters(other, adapters, seed=6)
    assert not torch.equal(other.model.layers[0].self_attn.q_proj.lora_A, model.model.layers[0].self_attn.q_proj.lora_A)


def test_dropout_is_a_function_of_the_generator_and_off_when_measuring():
    layer = LoraLinear(torch.nn.Linear(8, 8), Adapters(2, 4.0, ("x",), dropout=0.5))
    torch.nn.init.ones_(layer.lora_A), torch.nn.init.ones_(layer.lora_B)
    x = torch.ones(3, 8)
    torch.manual_seed(1)
    one, other = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), one) and not torch.equal(one, other)
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_module_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(
        RecipeError, match=r"names w_pack, which no linear layer .* there are down_proj, gate_proj, k_proj"
    ):
        add_adapters(tiny(), Adapters(4, 8.0, ("q_proj", "w_pack")), seed=0)


def test_the_head_gets_no_adapter():
    with pytest.raises(RecipeError, match="names lm_head"):
        add_adapters(tiny(), Adapters(4, 8.0, ("q_proj", "lm_head")), seed=0)
