"""What the routers of a model add to the loss, and what they report: one object that all sparse layers share.

A layer cannot return its loss: pipeline stages, checkpointed layers and an engine's `backward` pass on activations
alone. So the loss acts on the gradient: `add_router_losses` gives the logits back unchanged, and in the backward pass
adds the loss's own gradient to theirs, times a scale that the engine sets (as Megatron-LM's `MoEAuxLossAutoScaler`
does). The counting is done there too, because the backward pass runs once for each layer and micro-batch whatever is
recomputed, and not in validation.

Legend: T tokens, k experts of a token, X experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Balance = Literal["micro_batch", "global_batch"]


@dataclass
class LayerLoads:
    """Sums of one layer since the last reset.

    Attributes:
        counts: [X], fp64: this worker's counted tokens that chose each expert.
        aux_loss: Scalar, fp64, summed over passes, before its coefficient.
        z_loss: The same for the z-loss.
        passes: Backward passes.
    """

    counts: Tensor
    aux_loss: Tensor
    z_loss: Tensor
    passes: int = 0


@dataclass
class RouterLosses:
    """Load-balancing loss and z-loss of all sparse layers, and the loads that they saw.

    Each layer adds, over the counted tokens of a micro-batch,

        aux_coef * X * sum_i f_i P_i  +  z_coef * mean_t logsumexp(logits_t)^2

    with `P_i` the mean probability of expert i, and `f_i` the number of tokens that chose it, by token (they sum to k,
    so an even load gives k). The first is Switch Transformer's loss (Fedus et al., 2021, arXiv 2101.03961, equation 4),
    for k experts scaled as transformers' `load_balancing_loss_func` scales it: for one layer both are equal. For
    several, transformers pools the tokens of all layers before it multiplies, so that one layer's imbalance can hide
    another's; here, as in Switch and Megatron-LM, the layers' losses are summed. The second is ST-MoE's (Zoph et al.,
    2022, arXiv 2202.08906, equation 5).

    `balance="micro_batch"` takes `f` from the micro-batch alone. `global_batch` (Qiu et al., 2025, arXiv 2501.11873)
    takes it from all data-parallel workers and all passes of the optimiser step so far, so that experts may specialise
    by domain: within a micro-batch few domains occur, and balance there forces all experts to share each. `P` stays the
    micro-batch's own; averaged over workers, the gradient is that of the global batch.

    Attributes:
        num_experts: X.
        aux_coef: Weight of the load-balancing loss, at least 0.
        z_coef: Weight of the z-loss, at least 0.
        balance: Where `f` is taken from.
        scale: Multiplies the gradients: what an engine multiplies the loss by before its backward pass (loss scale of
            fp16, 1 / passes of a step). Read in the backward pass, so a change counts at once.
        group: Process group of the data-parallel workers; `None` counts this worker alone.
        loads: Sums by layer since `reset`.
    """

    num_experts: int
    aux_coef: float = 0.0
    z_coef: float = 0.0
    balance: Balance = "micro_batch"
    scale: float = 1.0
    group: Any = None
    loads: dict[int, LayerLoads] = field(default_factory=dict)
    _step_counts: dict[int, Tensor] = field(default_factory=dict)

    def start_step(self) -> None:
        """Forget the passes so far: call before the first micro-batch of each optimiser step."""
        self._step_counts.clear()

    def reset(self) -> None:
        """Forget the loads, after they were logged."""
        self.loads.clear()

    def metrics(self, *, reset: bool = True) -> dict[str, float]:
        """Give what to log; with a `group`, every worker of it must call this, and gets the same.

        Args:
            reset: Begin new sums.

        Returns:
            For each layer `router/layer_03/...`: `max_load` and `min_load`, the busiest and the idlest expert's tokens
            over the mean; `entropy`, of the loads over its maximum, so 1 is even; `aux_loss` and `z_loss`, means over
            passes and workers before their coefficients. `router/max_load` is the largest of all layers, and
            `router/aux_loss`, `router/z_loss` the sums over layers.
        """
        if not self.loads:
            return {}
        layers = sorted(self.loads)
        sums = torch.stack([_flat(self.loads[layer]) for layer in layers])  # [layers, X + 3]
        if self.group is not None:
            torch.distributed.all_reduce(sums, group=self.group)
        figures: dict[str, float] = {}
        for layer, row in zip(layers, sums.double().cpu(), strict=True):
            figures |= {f"router/layer_{layer:02d}/{name}": value for name, value in _describe(row).items()}
        for name, over in (("max_load", max), ("aux_loss", sum), ("z_loss", sum)):
            figures[f"router/{name}"] = over(figures[f"router/layer_{layer:02d}/{name}"] for layer in layers)
        if reset:
            self.reset()
        return figures

    def gradient(self, layer: int, logits: Tensor, counts: Tensor, counted: Tensor | None) -> Tensor:
        """Compute the losses' gradient by a layer's logits, unscaled, and add its loads to the sums.

        Args:
            layer: Its number.
            logits: [T, X], fp32.
            counts: [X], counted tokens that chose each expert.
            counted: [T], boolean, or `None` for all.

        Returns:
            [T, X].
        """
        mask = logits.new_ones(len(logits)) if counted is None else counted.to(logits.dtype)
        tokens = mask.sum()
        share = mask / tokens.clamp(min=1.0)  # [T], sums to 1 where anything is counted
        frequency = self._frequency(layer, counts.to(logits.dtype), tokens)  # [X]
        log_sums = logits.logsumexp(-1)  # [T]
        probabilities = (logits - log_sums[:, None]).exp()
        aux_by_token = self.num_experts * probabilities @ frequency  # [T]; its mean is the loss
        self._add(layer, counts, share @ aux_by_token, share @ log_sums.square())
        grad = self.aux_coef * (self.num_experts * frequency[None, :] - aux_by_token[:, None])
        grad = grad + 2 * self.z_coef * log_sums[:, None]
        return probabilities * grad * share[:, None]

    def _frequency(self, layer: int, counts: Tensor, tokens: Tensor) -> Tensor:
        """Give `f` [X] by the balance that was asked for."""
        if self.balance == "micro_batch":
            return counts / tokens.clamp(min=1.0)
        sums = torch.cat((counts, tokens[None])).double()  # [X + 1]; fp32 counts are exact to 16 million only
        if self.group is not None:
            torch.distributed.all_reduce(sums, group=self.group)
        if layer in self._step_counts:
            sums += self._step_counts[layer]
        self._step_counts[layer] = sums
        return (sums[:-1] / sums[-1].clamp(min=1.0)).to(counts.dtype)

    def _add(self, layer: int, counts: Tensor, aux_loss: Tensor, z_loss: Tensor) -> None:
        if layer not in self.loads:
            zero = torch.zeros((), dtype=torch.float64, device=counts.device)
            self.loads[layer] = LayerLoads(torch.zeros_like(counts, dtype=torch.float64), zero, zero.clone())
        loads = self.loads[layer]
        loads.counts += counts
        loads.aux_loss += aux_loss
        loads.z_loss += z_loss
        loads.passes += 1


def count_chosen(chosen: Tensor, num_experts: int, counted: Tensor | None = None) -> Tensor:
    """Count the tokens that chose each expert, without waiting for the device as `bincount` does.

    Args:
        chosen: [T, k], int64.
        num_experts: X.
        counted: [T], boolean; `None` counts all tokens.

    Returns:
        [X], int64.
    """
    ones = torch.ones_like(chosen) if counted is None else counted[:, None].expand(chosen.shape).long()
    counts = torch.zeros(num_experts, dtype=torch.int64, device=chosen.device)
    return counts.scatter_add_(0, chosen.flatten(), ones.flatten())


# What it does in the backward pass (counting, an all-reduce) is no graph's business
@torch.compiler.disable  # type: ignore[untyped-decorator]
def add_router_losses(
    logits: Tensor, chosen: Tensor, counted: Tensor | None, losses: RouterLosses, layer: int
) -> Tensor:
    """Give the logits back unchanged; their gradient will hold the losses'.

    Args:
        logits: [T, X], fp32, with a graph.
        chosen: [T, k], int64.
        counted: Boolean, of T elements; `None` counts all tokens.
        losses: The model's.
        layer: The layer's number.

    Returns:
        [T, X].
    """
    mask = None if counted is None else counted.flatten()
    counts = count_chosen(chosen, logits.shape[-1], mask)
    return _AddRouterLosses.apply(logits, counts, mask, losses, layer)  # type: ignore[no-any-return, no-untyped-call]


class _AddRouterLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, counts: Tensor, counted: Tensor | None, losses: RouterLosses, layer: int
    ) -> Tensor:
        ctx.save_for_backward(logits, counts, counted)
        ctx.losses, ctx.layer = losses, layer
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, counts, counted = ctx.saved_tensors
        own = ctx.losses.gradient(ctx.layer, logits, counts, counted)
        return grad + own * ctx.losses.scale, None, None, None, None


def _flat(loads: LayerLoads) -> Tensor:
    """Join a layer's sums: X counts, both losses, passes."""
    passes = loads.counts.new_full((1,), loads.passes)
    return torch.cat((loads.counts, loads.aux_loss[None], loads.z_loss[None], passes))


def _describe(row: Tensor) -> dict[str, float]:
    """Turn a layer's sums, joined by `_flat`, into figures."""
    counts, (aux_loss, z_loss, passes) = row[:-3], row[-3:].tolist()
    share = counts / counts.sum().clamp(min=1.0)
    entropy = float(torch.special.entr(share).sum()) / math.log(max(2, len(counts)))
    return {
        "max_load": float(share.max()) * len(share),
        "min_load": float(share.min()) * len(share),
        "entropy": entropy,
        "aux_loss": aux_loss / passes,
        "z_loss": z_loss / passes,
    }
