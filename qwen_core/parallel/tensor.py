"""Tensor parallelism: each layer's matrices split between workers (Megatron-LM, Shoeybi et al., arXiv 1909.08053).

    residual [B, S, E] ─▶ norm ─▶ enter ─▶ own heads, or own part of the MLP ─▶ leave ─▶ + ─▶
                                    │ backward: sum                              │ forward: sum

The decoder's own layers are built with the figures of one share (heads / t, intermediate size / t), so their
projections are column- and row-parallel without another class; two hooks at attention and MLP sum over the group.
With sequence parallelism (Korthikanti et al., 2022, arXiv 2205.05198) the residual stream between them is split along
S: `enter` gathers it, `leave` sums and scatters.

Own code, although torch (DTensor's `parallelize_module`) and DeepSpeed (AutoTP) have such: DTensor parameters do not
fit into the flat buffers of DeepSpeed's ZeRO-1, and AutoTP has neither a vocabulary-parallel loss nor a pipeline.

Legend: B batch, S sequence, N rows that count, E hidden, V vocabulary, K key/value heads, D head dim,
t workers of the group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from qwen_core.model import ModelConfig
from qwen_core.model.decoder import DecoderLayer
from qwen_core.model.loss import linear_cross_entropy
from qwen_core.parallel.traffic import communication

_Way = Callable[[Tensor, "TensorGroup"], Tensor]


@dataclass(frozen=True)
class TensorGroup:
    """The workers that share each layer.

    Attributes:
        rank: This worker's place, from 0.
        size: How many there are.
        group: torch's process group; `None` where the worker is alone.
        is_sequence_parallel: Whether the residual stream is split along the sequence.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    is_sequence_parallel: bool = False

    def enter(self, x: Tensor) -> Tensor:
        """Begin a split region: [B, S or S/t, E], alike everywhere or a part each, to the whole [B, S, E]."""
        inward, outward = self._ways
        return x if self.size == 1 else _Cross.apply(x, self, inward, outward)  # type: ignore[no-untyped-call]

    def leave(self, x: Tensor) -> Tensor:
        """End a split region: [B, S, E], a summand each, to the sum, or to a part [B, S/t, E] of it."""
        inward, outward = self._ways
        return x if self.size == 1 else _Cross.apply(x, self, outward, inward)  # type: ignore[no-untyped-call]

    @property
    def _ways(self) -> tuple[_Way, _Way]:
        """What leads into a split region and what leads out: the gradient of each goes through the other."""
        return (_gathered, _scattered) if self.is_sequence_parallel else (_kept, _summed)


class _Cross(torch.autograd.Function):
    """Go one way forward; the gradient comes back by the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: TensorGroup, there: _Way, back: _Way) -> Tensor:
        ctx.group, ctx.back = group, back
        return there(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.back(grad, ctx.group), None, None, None


def _kept(x: Tensor, group: TensorGroup) -> Tensor:
    """Pass on what is alike everywhere."""
    return x.view_as(x)


def _summed(x: Tensor, group: TensorGroup) -> Tensor:
    """Sum over the group, into a new tensor."""
    out = x.clone(memory_format=torch.contiguous_format)
    with communication():
        dist.all_reduce(out, group=group.group)
    return out


def _gathered(x: Tensor, group: TensorGroup) -> Tensor:
    """Join [B, S/t, E] along the sequence."""
    parts = x.new_empty(group.size, *x.shape)  # [t, B, S/t, E]
    with communication():
        dist.all_gather_into_tensor(parts.flatten(0, 1), x.contiguous(), group=group.group)
    return parts.movedim(0, 1).flatten(1, 2)  # [B, S, E]


def _scattered(x: Tensor, group: TensorGroup) -> Tensor:
    """Sum [B, S, E] over the group, and keep this worker's part [B, S/t, E]."""
    parts = x.unflatten(1, (group.size, -1)).movedim(1, 0).contiguous()  # [t, B, S/t, E]
    out = torch.empty_like(parts[0])
    with communication():
        dist.reduce_scatter_tensor(out, parts.flatten(0, 1), group=group.group)
    return out


def share_of(config: ModelConfig, size: int) -> ModelConfig:
    """Give the figures of one worker's part of a layer.

    Args:
        config: Of the whole model; `plan.check` has found that everything divides.
        size: Workers of the tensor group.

    Returns:
        The same model with a share of heads and of intermediate sizes.
    """
    return dataclasses.replace(
        config,
        num_attention_heads=config.num_attention_heads // size,
        num_key_value_heads=max(1, config.num_key_value_heads // size),
        intermediate_size=config.intermediate_size // size,
        moe_intermediate_size=config.moe_intermediate_size // size,
        shared_expert_intermediate_size=config.shared_expert_intermediate_size // size,
    )


def split_layer(layer: DecoderLayer, config: ModelConfig, group: TensorGroup) -> None:
    """Make a decoder layer that was built by `share_of` work as one worker's part.

    Args:
        layer: Changed in place.
        config: Of the whole model.
        group: The workers that share it.
    """
    if group.size == 1:
        return
    if config.num_key_value_heads < group.size:
        head = group.rank // (group.size // config.num_key_value_heads)
        for name in ("k_proj", "v_proj"):
            setattr(layer.self_attn, name, HeadOfLinear(config, head))
    for region in (layer.self_attn, layer.mlp):
        region.register_forward_pre_hook(lambda _, inputs: (group.enter(inputs[0]), *inputs[1:]))
        region.register_forward_hook(lambda _, __, output: group.leave(output))


class HeadOfLinear(nn.Module):
    """A key or value projection of more workers than heads: all hold all heads, each computes one.

    The gradients are summed over the group once a step, as those of all weights that are alike everywhere (`layout`).
    """

    def __init__(self, config: ModelConfig, head: int) -> None:
        super().__init__()
        rows = config.num_key_value_heads * config.head_dim
        self.weight = nn.Parameter(torch.zeros(rows, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(rows)) if config.has_qkv_bias else None
        self._rows = slice(head * config.head_dim, (head + 1) * config.head_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, E] to [B, S, D]."""
        return F.linear(x, self.weight[self._rows], None if self.bias is None else self.bias[self._rows])


class VocabularyShare(nn.Module):
    """A worker's rows of the embedding, or of the head: [V/t, E]."""

    def __init__(self, config: ModelConfig, group: TensorGroup) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.vocab_size // group.size, config.hidden_size))
        self.group = group
        self.first_id = group.rank * len(self.weight)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Map ids [B, S] to [B, S or S/t, E]; ids of other workers add zero."""
        if self.group.size == 1:
            return F.embedding(input_ids, self.weight)
        index, is_own = self.pick(input_ids)
        return self.group.leave(F.embedding(index, self.weight) * is_own[..., None])

    def losses(self, rows: Tensor, targets: Tensor, chunk_tokens: int = 2048) -> Tensor:
        """Compute the cross-entropy of the whole vocabulary, as `qwen_core.model.loss.token_losses` asks of a head.

        Args:
            rows: [N, E], from `TensorGroup.enter`, alike on all workers of the group.
            targets: [N], int64, each 0 to V - 1.
            chunk_tokens: Logits of so many rows exist at once.

        Returns:
            [N], fp32, alike on all workers.
        """
        if self.group.size == 1:
            return linear_cross_entropy(rows, self.weight, targets)
        return _VocabularyLosses.apply(  # type: ignore[no-any-return, no-untyped-call]
            rows, self.weight, targets, self, chunk_tokens
        )

    def pick(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Find ids [...] among the own rows: their index (0 where they are others'), and whether they are own."""
        own = ids - self.first_id
        is_own = (own >= 0) & (own < len(self.weight))
        return own.where(is_own, 0), is_own


class _VocabularyLosses(torch.autograd.Function):
    """Cross-entropy of split logits, a chunk of tokens at a time; the backward pass makes each chunk's logits again.

    Two small all-reduces for each chunk: the largest logit, then the sum of exponentials with the target's logit.
    The backward pass needs none, for it keeps the logarithm of the sum.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, head: VocabularyShare, chunk_tokens: int
    ) -> Tensor:
        pairs = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        parts = [_chunk_losses(part, weight, target, head) for part, target in pairs]
        losses, log_sums = (torch.cat(each) for each in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, targets, log_sums)
        ctx.head, ctx.chunk_tokens = head, chunk_tokens
        return losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, log_sums = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), ctx.chunk_tokens):
            rows = slice(start, start + ctx.chunk_tokens)
            share = ((hidden[rows] @ weight.t()).float() - log_sums[rows, None]).exp()  # probabilities [N, V/t]
            index, is_own = ctx.head.pick(targets[rows])
            share.scatter_add_(1, index[:, None], -is_own[:, None].float())
            share = (share * grad[rows, None]).to(hidden.dtype)
            grad_hidden[rows] = share @ weight
            grad_weight += share.t() @ hidden[rows]
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _chunk_losses(hidden: Tensor, weight: Tensor, targets: Tensor, head: VocabularyShare) -> tuple[Tensor, Tensor]:
    """Give losses [N] and logarithms of the sums of exponentials [N], fp32."""
    logits = (hidden @ weight.t()).float()  # [N, V/t]
    largest = logits.amax(-1)
    with communication():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=head.group.group)
    index, is_own = head.pick(targets)
    target = logits.gather(1, index[:, None])[:, 0].where(is_own, 0.0)
    both = torch.stack(((logits - largest[:, None]).exp().sum(-1), target))  # [2, N]
    with communication():
        dist.all_reduce(both, group=head.group.group)
    log_sums = both[0].log() + largest
    return log_sums - both[1], log_sums
