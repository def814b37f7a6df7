"""Mixture of experts as Qwen1.5-MoE, Qwen2-MoE and Qwen3-MoE have it: a router, experts, perhaps a shared expert.

    x [T, E] ─▶ gate ─▶ logits [T, X] ─▶ softmax, top k ─▶ rows sorted by expert [T * k, E] ─▶ experts ─▶ weighted sum
        └──────▶ shared expert x sigmoid gate (qwen2_moe) ───────────────────────────────────────────────▶ + ─▶ [T, E]

No token is dropped and no expert has a capacity: each expert takes the rows that chose it, in one grouped matrix
product (as in MegaBlocks, Gale et al., 2022, arXiv 2211.15841). Names and stacked shapes are those that transformers 5
has in memory; `experts.py` turns them into the published files' names and back.

Legend: B batch, S sequence, T tokens (B * S), k experts of a token, N rows (T * k), X experts, E hidden, I the
expert's intermediate size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from qwen_core.model.config import ModelConfig
from qwen_core.model.mlp import MLP
from qwen_core.model.router import Balance, RouterLosses, add_router_losses, count_chosen


class Router(nn.Module):
    """The gate: scores every expert for every token."""

    def __init__(self, hidden_size: int, num_experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_experts, hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        """Map [T, E] to logits [T, X], in fp32 whatever the weights are.

        The router alone computes in fp32 (Switch Transformer, Fedus et al., 2021, section 2.4): a logit rounded to
        bf16 moves an expert's probability by up to 4 percent. transformers multiplies in the weights' type and widens
        afterwards; in fp32 both are the same.
        """
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float())


class Experts(nn.Module):
    """The experts of a layer, stacked.

    A module of its own, because ZeRO-3 gathers a module's own weights when it is called: all experts, on all
    workers, whatever the tokens chose, so that workers whose tokens route differently do not wait for each other.

    Attributes:
        gate_up_proj: [X, 2I, E], the gate's rows first.
        down_proj: [X, E, I].
    """

    def __init__(self, num_experts: int, hidden_size: int, moe_intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * moe_intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, moe_intermediate_size))
        for weight in (self.gate_up_proj, self.down_proj):  # as nn.Linear starts
            nn.init.kaiming_uniform_(weight.flatten(0, 1), a=5**0.5)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Apply to each row its expert.

        Args:
            x: [N, E], rows sorted by expert.
            counts: [X], int64, how many rows each expert has.

        Returns:
            [N, E].
        """
        gate, up = grouped_linear(x, self.gate_up_proj, counts).chunk(2, -1)  # [N, I] each
        return grouped_linear(F.silu(gate) * up, self.down_proj, counts)


class SparseMoeBlock(nn.Module):
    """The MLP of a sparse layer.

    Attributes:
        layer: Its number in the model, for the metrics.
        router_losses: Shared by all layers once `router_of(model)` was called; without it nothing is added.
    """

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__()
        self.layer, self.top_k, self.norm_topk_prob = layer, config.num_experts_per_tok, config.norm_topk_prob
        self.num_experts = config.num_experts
        self.loss_coefs = (config.router_aux_loss_coef, config.router_z_loss_coef)
        self.router_losses: RouterLosses | None = None
        self.gate = Router(config.hidden_size, config.num_experts)
        self.experts = Experts(config.num_experts, config.hidden_size, config.moe_intermediate_size)
        self.has_shared_expert = config.shared_expert_intermediate_size > 0
        if self.has_shared_expert:
            self.shared_expert = MLP(config.hidden_size, config.shared_expert_intermediate_size)
            self.shared_expert_gate = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Map [B, S, E] to [B, S, E].

        Args:
            x: The normed residual stream.
            counted: [B, S], boolean: tokens that the router's losses and loads count, so not the padding; `None`
                counts all. Every token is computed, counted or not.

        Returns:
            The same shape and dtype.
        """
        flat = x.flatten(0, -2)  # [T, E]
        logits = self.gate(flat)  # [T, X]
        chosen = logits.detach().topk(self.top_k, -1).indices  # [T, k]
        if self.router_losses is not None and logits.requires_grad:
            logits = add_router_losses(logits, chosen, counted, self.router_losses, self.layer)
        weights = logits.softmax(-1).gather(-1, chosen)  # [T, k]
        if self.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        out = self._routed(flat, weights.to(x.dtype), chosen)
        if self.has_shared_expert:
            out = out + F.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)
        return out.view(x.shape)

    def _routed(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Send tokens [T, E] to their experts and sum by weights, [T, k] both."""
        order, inverse = order_by_expert(chosen.flatten())
        # [N, E], by expert
        rows = _Dispatch.apply(x, order, inverse, self.top_k)  # type: ignore[no-untyped-call]
        rows = self.experts(rows, count_chosen(chosen, self.num_experts))
        rows = permute(rows, inverse, order)  # [N, E], by token
        return (rows.view(*chosen.shape, -1) * weights[..., None]).sum(1)  # [T, E]


def router_of(model: nn.Module, balance: Balance | None = None) -> RouterLosses | None:
    """Give the object that a model's sparse layers share, made at the first call.

    Args:
        model: With sparse layers, or a pipeline stage of such a model.
        balance: Where the load-balancing loss takes its counts from, the global batch where it is not given; only the
            first call decides.

    Returns:
        The losses with the configuration's coefficients, or `None` for a model without sparse layers.
    """
    blocks = [module for module in model.modules() if isinstance(module, SparseMoeBlock)]
    if not blocks:
        return None
    losses = next((block.router_losses for block in blocks if block.router_losses is not None), None)
    if losses is None:
        losses = RouterLosses(blocks[0].num_experts, *blocks[0].loss_coefs, balance or "global_batch")
    for block in blocks:
        block.router_losses = losses
    return losses


def order_by_expert(experts: Tensor) -> tuple[Tensor, Tensor]:
    """Sort rows by their experts [N]: the order, and its inverse, as `permute` takes them; rows of one keep theirs."""
    order = experts.argsort(stable=True)
    return order, torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def permute(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Reorder rows, with a gradient that is a gather too.

    Args:
        x: [N, ...].
        order: [N], int64: `out[i] = x[order[i]]`.
        inverse: [N], int64: the order that leads back.

    Returns:
        [N, ...].
    """
    return _Permute.apply(x, order, inverse)  # type: ignore[no-any-return, no-untyped-call]


class _Dispatch(torch.autograd.Function):
    """Copy each token to its k rows, in the experts' order.

    Plain indexing would add up the gradient with atomics, in an order that no run repeats; a gather and a sum are
    exact, and faster.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top_k = top_k
        return x[order // top_k]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return grad[inverse].view(-1, ctx.top_k, grad.shape[-1]).sum(1), None, None, None


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return grad[inverse], None, None


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Multiply each group of rows by its own matrix.

    Args:
        x: [N, in], rows sorted by group.
        weight: [X, out, in].
        counts: [X], int64, rows of each group; they sum to N.

    Returns:
        [N, out], in the weight's dtype. Every matrix gets a gradient, zero where it had no row.
    """
    return _GroupedLinear.apply(x.to(weight.dtype), weight, counts)  # type: ignore[no-any-return, no-untyped-call]


class _GroupedLinear(torch.autograd.Function):
    """Keeps the parameter itself for the backward pass, never a view of it.

    A saved view would hold the gathered weights of every layer in memory until the backward pass: under ZeRO-3 the
    parameter's storage is taken away after the forward pass and gathered anew before the backward one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, counts)
        return _grouped_product(x, weight.transpose(1, 2), counts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, counts = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = _grouped_product(grad, weight, counts) if ctx.needs_input_grad[0] else None
        grad_weight = _grouped_outer(grad, x, counts) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None


def _grouped_product(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Multiply rows [N, in], sorted by group, by their matrices [X, in, out]."""
    if has_grouped_mm(x, weight.shape[-1]):
        return F.grouped_mm(x, weight, offs=counts.cumsum(0, dtype=torch.int32))
    parts = x.split(counts.tolist())
    return torch.cat([part @ matrix for part, matrix in zip(parts, weight.unbind(), strict=True)])


def _grouped_outer(left: Tensor, right: Tensor, counts: Tensor) -> Tensor:
    """Sum each group's outer products: [N, out] and [N, in] to [X, out, in]."""
    if has_grouped_mm(left, right.shape[-1]):
        out = F.grouped_mm(left.t(), right, offs=counts.cumsum(0, dtype=torch.int32))
        return torch.where(counts[:, None, None] > 0, out, 0)  # kernels leave an empty group unwritten
    sizes = counts.tolist()
    pairs = zip(left.split(sizes), right.split(sizes), strict=True)
    return torch.stack([rows.t() @ others for rows, others in pairs])


def has_grouped_mm(rows: Tensor, width: int) -> bool:
    """Say whether torch's grouped matrix product takes these operands; a loop over the groups does otherwise.

    On CUDA it is written for bf16 on compute capability 8.0 and up, and for rows of whole 16 bytes; on a CPU for all
    floats, but not compiled.

    Args:
        rows: [N, in].
        width: Of the result's rows.

    Returns:
        Whether `torch.nn.functional.grouped_mm` can be called.
    """
    if not hasattr(F, "grouped_mm") or not len(rows):
        return False
    if rows.device.type == "cuda":
        is_aligned = rows.shape[-1] % 8 == 0 and width % 8 == 0
        return rows.dtype == torch.bfloat16 and is_aligned and torch.cuda.get_device_capability(rows.device) >= (8, 0)
    return rows.device.type == "cpu" and not torch.compiler.is_compiling()
