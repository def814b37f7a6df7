"""One table tells how each weight is named and split."""

import pytest
import torch

from qwen_core.errors import ArtifactError
from qwen_core.model import CausalLM
from qwen_core.parallel.layout import in_order, rule_of, to_hugging_face_name, to_pipeline_name
from qwen_core.parallel.tensor import share_of
from tests.parallel.test_weight_sources import SPARSE
from tests.parallel.tiny import tiny_config, tiny_model

FAMILIES = {
    "qwen3": {},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2_moe": SPARSE,
    "one_key_head": {"num_key_value_heads": 1},
}


@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_shares_put_together_give_the_whole_again(changes):
    config = tiny_config(**changes)
    for name, weight in tiny_model(config).named_parameters():
        rule = rule_of(name, config, 2)
        shares = [rule.take(weight, rank, 2) for rank in range(2)]
        assert torch.equal(rule.join(shares), weight), name


@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_shares_fit_layers_that_are_built_with_the_figures_of_a_share(changes):
    config = tiny_config(**changes)
    with torch.device("meta"):
        shares = dict(CausalLM(share_of(config, 2)).named_parameters())
    for name, weight in tiny_model(config).named_parameters():
        is_held_whole = "embed" in name or "lm_head" in name or (config.num_key_value_heads == 1 and ".k_" in name)
        is_held_whole |= config.num_key_value_heads == 1 and ".v_" in name
        if not is_held_whole:  # those have modules of their own
            assert rule_of(name, config, 2).take(weight, 0, 2).shape == shares[name].shape, name


@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_names_of_the_pipeline_lead_back(changes):
    config = tiny_config(**changes)
    names = [name for name, _ in tiny_model(config).named_parameters()]
    there = [to_pipeline_name(name, config) for name in names]
    assert [to_hugging_face_name(name, config) for name in there] == names
    assert len(set(there)) == len(names)


def test_names_of_the_pipeline():
    config = tiny_config()
    assert to_pipeline_name("model.embed_tokens.weight", config) == "0.weight"
    assert to_pipeline_name("model.layers.2.self_attn.q_proj.weight", config) == "3.self_attn.q_proj.weight"
    assert to_pipeline_name("model.norm.weight", config) == "4.weight"
    assert to_pipeline_name("lm_head.weight", config) == "5.weight"
    tied = tiny_config(tie_word_embeddings=True)
    assert to_pipeline_name("lm_head.weight", tied) == "tied_modules.embed_tokens.weight"


def test_gate_and_up_of_an_expert_are_cut_by_themselves():
    whole = torch.arange(8).view(1, 8, 1)  # gate's rows 0 to 3, up's 4 to 7
    rule = rule_of("model.layers.0.mlp.experts.gate_up_proj", tiny_config(), 2)
    assert rule.take(whole, 1, 2).flatten().tolist() == [2, 3, 6, 7]


def test_names_are_sorted_as_layers_follow():
    names = [
        "lm_head.weight",
        "model.layers.10.x",
        "model.norm.weight",
        "model.layers.9.x",
        "model.embed_tokens.weight",
    ]
    assert in_order(names) == [names[4], names[3], names[1], names[2], names[0]]


def test_unknown_name_is_refused():
    with pytest.raises(ArtifactError, match=r"model\.layers\.0\.mlp\.new\.weight has no rule for tensor parallelism"):
        rule_of("model.layers.0.mlp.new.weight", tiny_config(), 2)
