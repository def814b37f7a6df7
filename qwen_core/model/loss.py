"""Cross-entropy of a head over a large vocabulary, without its logits ever lying in memory together.

    hidden [B, S, E] ─▶ rows that a label counts for [N, E] ─▶ chunk by chunk: logits ─▶ loss, gradients ─▶ [B, S]

Logits of 8,192 tokens over 151,936 words take 5 GB in fp32, and as much again for their gradient: the largest tensors
of a training step by far. Here a chunk of tokens goes through at a time, and its gradients are made while its logits
are at hand (the idea of Liger Kernel, Hsu et al., 2024, arXiv 2410.10989; code and differences are our own). Rows whose
label is `IGNORE` are left out before the matrix product, so fine-tuning pays for the replies alone.

Legend: B batch, S sequence, N rows that count, C rows of a chunk, E hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

IGNORE = -100
"""A label that counts for no loss."""

CHUNK_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}
"""Of one chunk's logits, counted in fp32; where gradients are made they lie in the weight's dtype, and on a CPU only
some rows at a time are widened. A GPU needs many rows to be busy; a CPU is as fast with few."""

_CACHED_NUMBERS = 1 << 19
"""Logits of a chunk that a CPU turns into gradients in one go: in fp32 they fit a core's cache."""

_FP16_LIFT = 1024.0
"""Probabilities of a large vocabulary are so small that fp16 would lose their digits; lifted, it keeps them."""


class LMHead(nn.Linear):
    """The head: logits, or with targets each row's loss.

    The loss is computed in this module's forward pass, because under ZeRO-3 its weight is whole only there.

    Attributes:
        has_row_weights: Set where the losses of different tokens will be weighted differently (preferences): their
            gradients are then left to the backward pass. It changes the speed alone, never the result.
    """

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__(hidden_size, vocab_size, bias=False)
        self.has_row_weights = False

    def forward(self, hidden: Tensor, targets: Tensor | None = None) -> Tensor:
        """Score the vocabulary.

        Args:
            hidden: [..., E]; with targets [N, E].
            targets: [N], int64, none of them `IGNORE`.

        Returns:
            Logits [..., V] in the weight's dtype, or losses [N] in fp32 and nats.
        """
        if targets is None:
            return F.linear(hidden, self.weight)
        return linear_cross_entropy(hidden, self.weight, targets, self.has_row_weights)


def counted_rows(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Find the positions that predict a label which counts.

    Called before the layers run: on a GPU it waits for the device, which at that time has nothing to do.

    Args:
        labels: [B, S]; `labels[:, i]` is what position `i - 1` should predict.

    Returns:
        Rows [N] of the hidden states, laid end to end, and their targets [N].
    """
    shifted = F.pad(labels[:, 1:], (0, 1), value=IGNORE).flatten()
    rows = (shifted != IGNORE).nonzero().flatten()
    return rows, shifted[rows]


def token_losses(
    hidden: Tensor,
    labels: Tensor,
    head: Callable[[Tensor, Tensor], Tensor],
    counted: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Compute each token's loss.

    Args:
        hidden: [B, S, E], after the last norm.
        labels: [B, S]; `labels[:, i]` is what position `i - 1` should predict, `IGNORE` counts nothing.
        head: Takes rows [N, E] and targets [N], gives losses [N]: an `LMHead`, or a share of one.
        counted: What `counted_rows` gave for the labels, where it was called before.

    Returns:
        Negative log-likelihoods [B, S], fp32, nats; 0 where ignored and at position 0, which nothing predicts.
    """
    rows, targets = counted if counted is not None else counted_rows(labels)
    losses = head(hidden.flatten(0, 1).index_select(0, rows), targets)  # [N]
    return losses.new_zeros(labels.numel()).index_put((rows + 1,), losses).view(labels.shape)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, has_row_weights: bool = False) -> Tensor:
    """Compute the cross-entropy of `hidden @ weight.T` against targets; logits are widened to fp32 before the softmax.

    Args:
        hidden: [N, E].
        weight: [V, E], of the same dtype.
        targets: [N], int64, each 0 to V - 1.
        has_row_weights: Whether the rows' upstream gradients will differ. Right either way; known before, it saves
            half of the time that they cost otherwise.

    Returns:
        Losses [N], fp32, nats.
    """
    is_trained = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    makes_grads = is_trained and not (has_row_weights and weight.requires_grad)
    return _LinearCrossEntropy.apply(hidden, weight, targets, makes_grads)  # type: ignore[no-any-return,no-untyped-call]


class _LinearCrossEntropy(torch.autograd.Function):
    """Losses with both gradients made in the forward pass, for an upstream gradient of 1.

    The hidden states' gradient is right for any upstream gradient: each row is multiplied by its own. The weight's sums
    over rows, so it is right only where all rows share one; this is so when losses are summed or averaged, and saves a
    quarter of the work. Where the rows' differ (preferences, weighted sequences), logits are made again.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, makes_grads: bool) -> Tensor:
        ctx.lift = _FP16_LIFT if hidden.is_cuda and hidden.dtype == torch.float16 else 1.0
        upstream = ctx.lift if makes_grads else None
        losses, *ctx.grads = _walk(hidden, weight, targets, upstream, ctx.needs_input_grad[1])
        ctx.save_for_backward(hidden, weight, targets)
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets = ctx.saved_tensors
        is_weight_trained = ctx.needs_input_grad[1]
        (grad_hidden, grad_weight), ctx.grads = ctx.grads, (None, None)
        if grad_hidden is not None and not is_weight_trained:
            return grad_hidden.mul_(upstream[:, None] / ctx.lift), None, None, None
        if grad_hidden is not None and (not len(upstream) or bool((upstream == upstream[0]).all())):
            scale = (upstream[0] if len(upstream) else upstream.new_zeros(())) / ctx.lift
            return grad_hidden.mul_(scale), grad_weight.mul_(scale).to(weight.dtype), None, None
        del grad_hidden, grad_weight
        _, grad_hidden, grad_weight = _walk(hidden, weight, targets, upstream, is_weight_trained)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None


def _walk(
    hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor | float | None, is_weight_trained: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Go through all rows, a chunk at a time.

    Args:
        hidden: [N, E].
        weight: [V, E].
        targets: [N].
        upstream: Gradient of the losses, [N] or one for all; `None` makes no gradients.
        is_weight_trained: Whether the weight's gradient is made too.

    Returns:
        Losses [N], gradients of hidden [N, E] and weight [V, E]; the last in fp32 where it is summed over chunks.
    """
    budget = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cpu"])
    size = max(1, budget // (4 * len(weight)))
    parts = [slice(begin, begin + size) for begin in range(0, len(hidden), size)]
    losses = torch.empty(len(hidden), device=hidden.device)
    if upstream is None:
        for part in parts:
            losses[part] = F.cross_entropy((hidden[part] @ weight.T).float(), targets[part], reduction="none")
        return losses, None, None
    grad_hidden = torch.empty_like(hidden)
    grad_weight = None
    if is_weight_trained:
        is_summed = len(parts) > 1 or hidden.dtype == torch.float16
        grad_weight = torch.zeros_like(weight, dtype=torch.float32 if is_summed else weight.dtype)
    for part in parts:
        share = upstream if isinstance(upstream, float) else upstream[part, None]
        losses[part], grad_logits = _chunk(hidden[part], weight, targets[part], share)
        torch.mm(grad_logits, weight, out=grad_hidden[part])
        if grad_weight is not None:
            _add_outer(grad_weight, grad_logits, hidden[part])
    return losses, grad_hidden, grad_weight


def _chunk(hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor | float) -> tuple[Tensor, Tensor]:
    """Compute a chunk's losses [C], and the gradient of its logits [C, V] in the weight's dtype.

    The gradient takes the logits' place, some rows at a time: on a CPU as many as its cache holds in fp32.
    """
    logits = hidden @ weight.T  # [C, V]
    losses = torch.empty(len(hidden), device=hidden.device)
    size = len(hidden) if hidden.is_cuda else max(1, _CACHED_NUMBERS // len(weight))
    for begin in range(0, len(hidden), size):
        rows = slice(begin, begin + size)
        scores = F.log_softmax(logits[rows], -1, dtype=torch.float32)
        losses[rows] = -scores.gather(1, targets[rows, None])[:, 0]
        grad = scores.exp_()
        grad.scatter_add_(1, targets[rows, None], grad.new_full((len(grad), 1), -1.0))
        share = upstream if isinstance(upstream, float) else upstream[rows]
        logits[rows] = grad if isinstance(share, float) and share == 1.0 else grad.mul_(share)
    return losses, logits


def _add_outer(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left.T @ right to a total, in place: left [C, V], right [C, E], total [V, E]."""
    if total.dtype == right.dtype:
        total.addmm_(left.T, right)
    elif right.is_cuda:
        total.add_(torch.mm(left.T, right, out_dtype=torch.float32))
    else:
        total.add_(left.T @ right)
