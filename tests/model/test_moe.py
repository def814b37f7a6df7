"""The sparse layer against transformers' own, and the routers' losses against plain autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2MoeConfig, Qwen3MoeConfig
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock, load_balancing_loss_func

from qwen_core.model import ModelConfig, moe
from qwen_core.model.moe import SparseMoeBlock, grouped_linear, router_of
from qwen_core.model.router import RouterLosses, add_router_losses


def config(**changes: Any) -> ModelConfig:
    figures: dict[str, Any] = {
        "vocab_size": 1, "hidden_size": 16, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "model_type": "qwen3_moe", "num_experts": 6, "num_experts_per_tok": 2,
        "moe_intermediate_size": 8, "norm_topk_prob": True, "router_aux_loss_coef": 0.01, "router_z_loss_coef": 0.001,
    }  # fmt: skip
    return ModelConfig(**figures | changes)


def filled(block: torch.nn.Module) -> Any:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0, 0.3)
    return block


def plain_losses(logits: Tensor, chosen: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The two losses in the words of the papers, for autograd."""
    keep = torch.ones(len(logits), dtype=torch.bool) if mask is None else mask
    logits, chosen = logits[keep], chosen[keep]
    frequency = torch.nn.functional.one_hot(chosen, logits.shape[-1]).float().sum(1).mean(0)
    aux = logits.shape[-1] * (frequency * logits.softmax(-1).mean(0)).sum()
    return aux, logits.logsumexp(-1).square().mean()


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe"])
def test_block_equals_transformers_in_output_and_gradients(family: str, normalised: bool) -> None:
    shared = 12 if family == "qwen2_moe" else 0
    chosen = config(model_type=family, shared_expert_intermediate_size=shared, norm_topk_prob=normalised)
    ours = filled(SparseMoeBlock(chosen))
    figures: dict[str, Any] = {
        "hidden_size": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
        "norm_topk_prob": normalised, "num_hidden_layers": 1,
    }  # fmt: skip
    theirs: Any
    if shared:
        theirs = Qwen2MoeSparseMoeBlock(Qwen2MoeConfig(**figures, shared_expert_intermediate_size=shared))
    else:
        theirs = Qwen3MoeSparseMoeBlock(Qwen3MoeConfig(**figures))
    theirs.load_state_dict(ours.state_dict())  # the names and shapes are the same
    x = torch.randn(2, 7, 16)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [ours(inputs[0]), theirs(inputs[1])]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-5, atol=1e-5)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_grouped", [True, False])
def test_grouped_product_equals_a_loop_with_zero_gradients_for_idle_experts(
    is_grouped: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moe, "has_grouped_mm", lambda rows, width: is_grouped)
    counts = torch.tensor([0, 5, 0, 2, 4])
    x = torch.randn(11, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(5, 8, 16, dtype=dtype, requires_grad=True)
    out = grouped_linear(x, weight, counts)
    out.square().sum().backward()
    found = out.detach(), x.grad, weight.grad
    x.grad = weight.grad = None
    expected = torch.cat([part @ weight[i].t() for i, part in enumerate(x.split(counts.tolist()))])
    expected.square().sum().backward()
    for one, other in zip(found, (expected.detach(), x.grad, weight.grad), strict=True):
        torch.testing.assert_close(one, other)
    assert found[2][0].abs().sum() == 0


def test_no_row_at_all_still_gives_every_expert_a_gradient() -> None:
    weight = torch.randn(3, 8, 16, requires_grad=True)
    out = grouped_linear(torch.zeros(0, 16), weight, torch.zeros(3, dtype=torch.int64))
    out.sum().backward()
    assert out.shape == (0, 8)
    assert weight.grad is not None and weight.grad.shape == weight.shape and not weight.grad.any()


@pytest.mark.parametrize("is_masked", [True, False])
def test_losses_reach_the_gradient_as_plain_autograd_does(is_masked: bool) -> None:
    mask = torch.tensor([True] * 9 + [False] * 5).view(2, 7) if is_masked else None
    block = filled(SparseMoeBlock(config()))
    x = torch.randn(2, 7, 16, requires_grad=True)

    logits = block.gate(x.flatten(0, 1))
    aux, z = plain_losses(logits, logits.topk(2).indices, None if mask is None else mask.flatten())
    (block(x).square().sum() + 0.01 * aux + 0.001 * z).backward()
    expected = x.grad, block.gate.weight.grad
    x.grad = block.gate.weight.grad = None

    losses = router_of(block)
    assert losses is not None
    block(x, mask).square().sum().backward()
    torch.testing.assert_close(x.grad, expected[0])
    torch.testing.assert_close(block.gate.weight.grad, expected[1])
    figures = losses.metrics()
    assert figures["router/layer_00/aux_loss"] == pytest.approx(aux.item(), rel=1e-5)
    assert figures["router/layer_00/z_loss"] == pytest.approx(z.item(), rel=1e-5)


def test_aux_loss_of_one_layer_is_transformers_value() -> None:
    logits = torch.randn(30, 6, requires_grad=True)
    losses = RouterLosses(6, aux_coef=1.0)
    add_router_losses(logits, logits.topk(2).indices, None, losses, 0).sum().backward()
    theirs = load_balancing_loss_func((logits,), num_experts=6, top_k=2)
    assert losses.metrics()["router/aux_loss"] == pytest.approx(theirs.item(), rel=1e-6)


def test_scale_multiplies_only_the_losses_gradient() -> None:
    logits = torch.randn(30, 6, dtype=torch.float64, requires_grad=True)
    gradients = []
    for scale in (0.0, 1.0, 1024.0):
        losses = RouterLosses(6, aux_coef=0.01, z_coef=0.001, scale=scale)
        logits.grad = None
        add_router_losses(logits, logits.topk(2).indices, None, losses, 0).square().sum().backward()
        gradients.append(logits.grad)
    task, once, many = gradients
    torch.testing.assert_close(task, 2 * logits.detach())
    torch.testing.assert_close(many - task, 1024 * (once - task))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_recomputed_layers_count_once(use_reentrant: bool) -> None:
    block = filled(SparseMoeBlock(config()))
    losses = router_of(block)
    assert losses is not None
    x = torch.randn(2, 7, 16, requires_grad=True)
    block(x).square().sum().backward()
    plain, counts = block.gate.weight.grad.clone(), losses.loads[0].counts.clone()
    losses.reset()
    block.zero_grad()
    checkpoint(block, x, use_reentrant=use_reentrant).square().sum().backward()
    torch.testing.assert_close(block.gate.weight.grad, plain)
    assert counts.sum() == 28
    assert losses.loads[0].counts.equal(counts)
    assert losses.loads[0].passes == 1


def test_validation_is_not_counted() -> None:
    block = filled(SparseMoeBlock(config()))
    losses = router_of(block)
    assert losses is not None
    with torch.no_grad():
        block(torch.randn(1, 5, 16))
    assert losses.metrics() == {}


def test_global_batch_takes_frequencies_from_all_passes_of_the_step() -> None:
    """The second pass's gradient uses the counts of both; a new step begins anew."""
    passes = [torch.randn(10, 4), torch.randn(20, 4)]
    losses = RouterLosses(4, aux_coef=1.0, balance="global_batch")
    frequency = torch.cat([torch.nn.functional.one_hot(p.argmax(-1), 4) for p in passes]).float().mean(0)
    logits = [p.clone().requires_grad_() for p in passes]
    for one in logits:
        add_router_losses(one, one.topk(1).indices, None, losses, 0).backward(torch.zeros_like(one))
    expected = passes[1].clone().requires_grad_()
    (4 * (frequency * expected.softmax(-1).mean(0)).sum()).backward()
    torch.testing.assert_close(logits[1].grad, expected.grad)

    losses.start_step()
    again = passes[0].clone().requires_grad_()
    add_router_losses(again, again.topk(1).indices, None, losses, 0).backward(torch.zeros_like(again))
    torch.testing.assert_close(again.grad, logits[0].grad)


def test_metrics_of_a_collapsed_and_of_an_even_layer() -> None:
    """All 8 tokens on one of 4 experts: max/mean is 4, min 0, entropy 0. Two on each: 1, 1, 1."""
    losses = RouterLosses(4)
    for layer, chosen in ((3, torch.zeros(8, 1, dtype=torch.int64)), (11, torch.arange(8)[:, None] % 4)):
        logits = torch.zeros(8, 4, requires_grad=True)
        add_router_losses(logits, chosen, None, losses, layer).sum().backward()
    figures = losses.metrics()
    assert [figures[f"router/layer_03/{n}"] for n in ("max_load", "min_load", "entropy")] == [4.0, 0.0, 0.0]
    assert [figures[f"router/layer_11/{n}"] for n in ("max_load", "min_load", "entropy")] == pytest.approx([1, 1, 1])
    assert figures["router/max_load"] == 4.0
    assert figures["router/aux_loss"] == pytest.approx(2.0)  # uniform probabilities: 1 a layer for k = 1
    assert losses.metrics() == {}


def test_a_model_without_sparse_layers_has_no_router() -> None:
    assert router_of(torch.nn.Linear(2, 2)) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_the_block_equals_the_cpu(dtype: torch.dtype) -> None:
    """bf16 goes through the grouped kernel, fp16 through the loop; both against fp32 on the CPU."""
    one_expert = config(hidden_size=64, moe_intermediate_size=32, num_experts_per_tok=1)  # so there are no near ties
    block = filled(SparseMoeBlock(one_expert))
    x = torch.randn(2, 100, 64).to(dtype).float()
    block.to(dtype).float()
    expected = block(x)
    expected.square().mean().backward()
    gradients = [parameter.grad for parameter in block.parameters()]
    block.zero_grad()
    block.to("cuda", dtype)
    found = block(x.to("cuda", dtype))
    found.float().square().mean().backward()
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0.05, atol=0.05)
    for parameter, gradient in zip(block.parameters(), gradients, strict=True):
        gap = (parameter.grad.float().cpu() - gradient).norm()
        assert gap < 0.05 * gradient.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_grouped_kernel_leaves_no_rubbish_for_idle_experts() -> None:
    x = torch.randn(64, 32, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    weight = torch.randn(4, 16, 32, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    grouped_linear(x, weight, torch.tensor([0, 40, 0, 24], device="cuda")).sum().backward()
    assert weight.grad is not None
    assert not weight.grad[0].any() and not weight.grad[2].any() and weight.grad[1].any()
