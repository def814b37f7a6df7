"""Optimisers: worked by hand, against torch's, and blind to how weights are cut into pieces."""

import math

import pytest
import torch
from torch import nn

from qwen_core.parallel.optimisers import (
    Lamb,
    Muon,
    Optimisation,
    is_for_muon,
    make_optimiser,
    orthogonalise,
    parameter_groups,
)
from qwen_core.parallel.pieces import Piece, cut, matrices_of, whole

NAMED = {
    "model.embed_tokens.weight": (8, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.0.self_attn.q_proj.bias": (4,),
    "model.layers.0.input_layernorm.weight": (4,),
    "model.layers.0.mlp.gate.weight": (3, 4),
    "model.layers.0.mlp.experts.down_proj": (3, 4, 6),
}


def _named():
    torch.manual_seed(0)
    return [(name, nn.Parameter(torch.randn(shape))) for name, shape in NAMED.items()]


def _group_of(name, optim):
    named = dict(_named())
    groups = parameter_groups(named.items(), optim)
    return next(group for group in groups if any(parameter is named[name] for parameter in group["params"]))


@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("model.embed_tokens.weight", 0.1),
        ("model.layers.0.self_attn.q_proj.weight", 0.1),
        ("model.layers.0.self_attn.q_proj.bias", 0.0),
        ("model.layers.0.input_layernorm.weight", 0.0),
        ("model.layers.0.mlp.experts.down_proj", 0.1),
    ],
)
def test_matrices_decay_norms_and_biases_do_not(name, decay):
    assert _group_of(name, Optimisation())["weight_decay"] == decay


def test_embeddings_decay_only_where_the_recipe_says_so():
    optim = Optimisation(decay_embeddings=False)
    assert _group_of("model.embed_tokens.weight", optim)["weight_decay"] == 0.0
    assert _group_of("model.layers.0.self_attn.q_proj.weight", optim)["weight_decay"] == 0.1


def test_frozen_parameters_are_in_no_group_and_scales_make_groups_of_their_own():
    named = _named()
    named[0][1].requires_grad_(False)
    optim = Optimisation(learning_rate=1.0, scales={"model.layers.0.self_attn.q_proj.weight": 0.25})
    groups = parameter_groups(named, optim)
    assert sum(len(group["params"]) for group in groups) == len(named) - 1
    assert sorted(group["peak_lr"] for group in groups) == [0.25, 1.0, 1.0]


def test_muon_turns_layers_matrices_and_experts_but_no_router_and_no_embedding():
    turned = [name for name, shape in NAMED.items() if is_for_muon(name, shape)]
    assert turned == ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.experts.down_proj"]


def test_lamb_takes_the_step_worked_by_hand():
    """Weights (3, 4), norm 5. Adam's first direction is the gradient's sign, (1, -1); no decay: norm sqrt(2).

    Trust 5 / sqrt(2), rate 0.1: each number moves by 0.1 * 5 / sqrt(2) = 0.3536.
    """
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    group = {"params": [weight], "weight_decay": 1e-12}
    weight.grad = torch.tensor([[0.5, -0.01]])
    Lamb([group], lr=0.1, betas=(0.9, 0.99), eps=0.0).step()
    moved = 0.5 / math.sqrt(2)
    assert weight.flatten().tolist() == pytest.approx([3 - moved, 4 + moved], rel=1e-6)


def test_lamb_scales_each_expert_by_its_own_norm():
    stacked = nn.Parameter(torch.stack([torch.ones(2, 2), 10 * torch.ones(2, 2)]))
    before = stacked.detach().clone()
    stacked.grad = torch.ones_like(stacked)
    Lamb([{"params": [stacked], "weight_decay": 1e-12}], lr=0.1, betas=(0.9, 0.99), eps=0.0).step()
    moved = (before - stacked.detach()).flatten(1).mean(1)
    assert moved.tolist() == pytest.approx([0.1, 1.0], rel=1e-5)


def test_lamb_without_decay_is_adam():
    first, second = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([1.0, 2.0]))
    lamb = Lamb([{"params": [first], "weight_decay": 0.0}], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    adam = torch.optim.Adam([second], lr=0.1, betas=(0.9, 0.99))
    for step in range(4):
        first.grad = second.grad = torch.tensor([0.3, -0.2]) * (step + 1)
        lamb.step()
        adam.step()
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32)])
def test_muon_moves_as_torchs_does(shape):
    """torch iterates in bf16: hence the bound, in units of the rate."""
    torch.manual_seed(1)
    ours, theirs = nn.Parameter(torch.randn(shape)), None
    theirs = nn.Parameter(ours.detach().clone())
    group = {"params": [ours], "weight_decay": 0.1, "use_muon": True}
    muon = Muon([group], lr=0.1, betas=(0.9, 0.99), eps=1e-8, momentum=0.95)
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, momentum=0.95, nesterov=True)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        muon.step()
        reference.step()
    assert (ours - theirs).abs().max() < 0.1 * 0.1


def test_muon_makes_all_directions_about_equally_strong():
    update = torch.randn(12, 40)
    flat = update.clone().view(-1)
    orthogonalise(flat, whole(update), False)
    values = torch.linalg.svdvals(flat.view(12, 40))
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_leaves_other_groups_to_adamw():
    named = _named()
    muon = make_optimiser(named, Optimisation(name="muon"))
    before = {name: parameter.detach().clone() for name, parameter in named}
    for _, parameter in named:
        parameter.grad = torch.randn_like(parameter)
    muon.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in named)
    states = {name: set(muon.state[parameter]) for name, parameter in named}
    assert states["model.embed_tokens.weight"] == {"step", "exp_avg", "exp_avg_sq"}
    assert states["model.layers.0.self_attn.q_proj.weight"] == {"step", "exp_avg"}


def test_pieces_may_begin_and_end_inside_experts():
    """Of two experts' 2 x 2 matrices the numbers 1 to 6 lie at 10: three of the first one, three of the other."""
    layout = cut([(2, 3), (2, 2, 2)], [(0, 4, 0, 2), (1, 1, 10, 6)], None)
    assert layout.shapes == ((2, 3), (2, 2), (2, 2)) == (*matrices_of((2, 3)), *matrices_of((2, 2, 2)))
    assert layout.pieces == (Piece(0, 4, 0, 2), Piece(1, 1, 10, 3), Piece(2, 0, 13, 3))
