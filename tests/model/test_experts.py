"""Stacked experts and Qwen's published names: there and back, in streams, and what is refused."""

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from qwen_core.errors import ArtifactError
from qwen_core.model.experts import split_experts, stack_experts

PREFIX = "model.layers.0.mlp.experts"


def stacked(prefix: str = PREFIX) -> dict[str, torch.Tensor]:
    return {f"{prefix}.gate_up_proj": torch.randn(3, 8, 5), f"{prefix}.down_proj": torch.randn(3, 5, 4)}


def test_there_and_back_is_equal_in_any_order():
    tensors = stacked() | {"model.norm.weight": torch.ones(5)}
    on_disk = list(split_experts(tensors.items()))
    assert len(on_disk) == 1 + 3 * 3
    back = dict(stack_experts(reversed(on_disk), num_experts=3))
    assert back.keys() == tensors.keys()
    assert all(back[name].equal(tensor) for name, tensor in tensors.items())


def test_gate_is_the_upper_half_of_each_expert():
    tensors = stacked()
    on_disk = dict(split_experts(tensors.items()))
    assert on_disk[f"{PREFIX}.2.gate_proj.weight"].equal(tensors[f"{PREFIX}.gate_up_proj"][2, :4])
    assert on_disk[f"{PREFIX}.2.up_proj.weight"].equal(tensors[f"{PREFIX}.gate_up_proj"][2, 4:])
    assert on_disk[f"{PREFIX}.1.down_proj.weight"].equal(tensors[f"{PREFIX}.down_proj"][1])


def test_names_on_disk_are_those_that_transformers_writes(tmp_path):
    from safetensors.torch import load_file

    config = Qwen3MoeConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=4,
    )  # fmt: skip
    theirs = Qwen3MoeForCausalLM(config)
    theirs.save_pretrained(tmp_path)
    published = load_file(tmp_path / "model.safetensors")
    ours = dict(split_experts(theirs.state_dict().items()))
    experts = {name for name in published if ".experts." in name}
    assert experts == {name for name in ours if ".experts." in name}
    assert all(published[name].equal(ours[name]) for name in experts)


def test_a_stack_comes_out_as_soon_as_it_is_complete():
    first, second = stacked("a.experts"), stacked("b.experts")
    seen = []

    def reading():
        for name, tensor in split_experts((first | second).items()):
            seen.append(name)
            yield name, tensor

    stream = stack_experts(reading(), num_experts=3)
    assert next(stream)[0] == "a.experts.gate_up_proj"
    assert all(name.startswith("a.experts") for name in seen)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda items: items[:-1], "1 matrices of experts are missing"),
        (lambda items: [*items[:2], items[0], *items[2:]], "is there twice"),
        (lambda items: [*items, (f"{PREFIX}.3.up_proj.weight", items[0][1])], "the model has 3 experts"),
        (lambda items: [items[0], (items[1][0], torch.zeros(2, 2)), *items[2:]], "has shape [2, 2]"),
    ],
)
def test_wrong_experts_are_refused(change, words):
    items = list(split_experts(stacked().items()))
    with pytest.raises(ArtifactError) as caught:
        list(stack_experts(change(items), num_experts=3))
    assert words in str(caught.value)
