"""Who sees whom in a batch of packed documents, and the kernels that keep to it.

`Structure` is made once for a batch and shared by all layers. Documents packed into one sequence never see each other,
and what `attend` does about it depends on the device:

    CPU                 each document by itself through SDPA's causal kernel: no mask, no work between documents;
                        in compiled layers behind an operator that the compiler does not look into
    CUDA, bf16 or fp16  `torch.nn.attention.varlen`: one launch over all documents
    CUDA, otherwise     `flex_attention` with a block mask, compiled

Legend: B batch, S sequence, T keys (cached and new), H heads, K key/value heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor


@dataclass(frozen=True)
class Structure:
    """Which keys each query may look at; without any field, all before it in its row.

    Attributes:
        lengths: Tokens of each document, over the batch's rows laid end to end; no document spans two rows.
        cu_seqlens: [documents + 1], int32: where each document begins on that line, and its end; on a CPU the end is
            repeated, so that the size is the same for all batches.
        max_length: Longest document.
        block_mask: flex_attention's.
        mask: [B, 1, S, T], boolean, true where a query may look.
    """

    lengths: tuple[int, ...] | None = None
    cu_seqlens: Tensor | None = None
    max_length: int = 0
    block_mask: Any = None
    mask: Tensor | None = None


CAUSAL = Structure()
"""One document a row."""

# The CPU's flash kernel is slower in bf16 than in fp32 where sequences are short: 1,024 tokens forward and backward
# 66 ms against 37 with casts at 128 tokens a document, equal at 512, and 300 against 327 at 1,024.
_FP32_BELOW_TOKENS = 512


def attend(query: Tensor, key: Tensor, value: Tensor, structure: Structure) -> Tensor:
    """Mix values by softmax of queries times keys, scaled by 1/sqrt(D), as far as the structure allows.

    Args:
        query: [B, S, H, D].
        key: [B, T, K, D]; K divides H.
        value: [B, T, K, D].
        structure: Who sees whom.

    Returns:
        [B, S, H, D].
    """
    if structure.cu_seqlens is not None and query.device.type == "cpu":
        return _attend_bounds(query, key, value, structure.cu_seqlens)  # type: ignore[no-any-return]
    if structure.cu_seqlens is not None:
        return _attend_varlen(query, key, value, structure)
    if structure.lengths is not None:
        return _attend_each(query, key, value, structure.lengths)
    if structure.block_mask is not None:
        return _attend_flex(query, key, value, structure.block_mask)
    return _sdpa(query, key, value, structure.mask)


def document_structure(starts: Tensor, dtype: torch.dtype, is_compiled: bool = False) -> Structure:
    """Keep packed documents apart.

    Measured on one CPU core, fp32, 2 x 2,048 tokens of 8 heads, forward and backward: a mask 860 ms whatever the
    documents; each by itself 303, 124, 40 ms for 2, 8, 32 documents a row; even at 8 tokens a document it is the
    faster of the two.

    Args:
        starts: [B, S], boolean, what `document_starts` gave. Padding is a document like any other.
        dtype: Of queries and keys.
        is_compiled: Whether the layers are compiled: on a CPU the documents' lengths then travel as a tensor, for as
            numbers they would make each batch a program of its own.

    Returns:
        The fastest structure for the device.
    """
    if starts.device.type == "cuda":
        return _cuda_structure(starts, dtype)
    if torch.compiler.is_compiling() or starts.is_meta:
        return Structure(mask=document_mask(starts))
    firsts = starts.flatten().nonzero().flatten()
    if is_compiled:
        room = starts.numel() + 1 - len(firsts)
        return Structure(cu_seqlens=F.pad(firsts, (0, room), value=starts.numel()).to(torch.int32))
    begins = firsts.tolist()
    ends = [*begins[1:], starts.numel()]
    lengths = tuple(end - begin for begin, end in zip(begins, ends, strict=True))
    return CAUSAL if len(lengths) == len(starts) else Structure(lengths=lengths)


def document_starts(segment_ids: Tensor) -> Tensor:
    """Mark each document's first token, [B, S], boolean; a document is a run of one number."""
    return F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)


def document_mask(starts: Tensor) -> Tensor:
    """Make the plain block-diagonal causal mask [B, 1, S, S] from marks of first tokens [B, S]."""
    document = starts.cumsum(1)
    index = torch.arange(starts.shape[1], device=starts.device)
    return (document[:, None, :, None] == document[:, None, None, :]) & (index[None, :] <= index[:, None])


def _cuda_structure(starts: Tensor, dtype: torch.dtype) -> Structure:
    """Lay the documents out for varlen attention, or for flex attention in fp32."""
    batch, length = starts.shape
    if dtype in (torch.bfloat16, torch.float16) and _varlen_attn() is not None:
        begins = starts.flatten().nonzero().flatten()  # waits for the device: once for a batch
        if len(begins) == batch:
            return CAUSAL
        cu_seqlens = F.pad(begins, (0, 1), value=starts.numel()).to(torch.int32)
        return Structure(cu_seqlens=cu_seqlens, max_length=length)
    from torch.nn.attention.flex_attention import create_block_mask

    document = starts.cumsum(1)

    def is_seen(b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (document[b, q] == document[b, k])

    return Structure(block_mask=create_block_mask(is_seen, batch, None, length, length, device=str(starts.device)))


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend through SDPA: causal, or as the mask [B, 1, S, T] says."""
    out = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None and query.shape[1] > 1,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return out.transpose(1, 2)


def _attend_each(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Attend in each document by itself; split and cat have one backward node each, slices would have many."""
    dtype = query.dtype
    if dtype != torch.float32 and sum(lengths) < _FP32_BELOW_TOKENS * len(lengths):
        query, key, value = query.float(), key.float(), value.float()
    parts = zip(*(torch.split(x.flatten(0, 1)[None], list(lengths), 1) for x in (query, key, value)), strict=True)
    return torch.cat([_sdpa(q, k, v, None) for q, k, v in parts], 1).view(query.shape).to(dtype)


@torch.library.custom_op("qwen_core::attend_bounds", mutates_args=())
def _attend_bounds(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor) -> Tensor:
    """Attend in each document by itself, between the bounds of a CPU tensor."""
    return _attend_each(query, key, value, _lengths(bounds)).contiguous()


@_attend_bounds.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor) -> Tensor:
    return query.new_empty(query.shape)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _attend_bounds_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Attend once more, for the forward kernel takes a fifth of the backward one's time, and go back."""
    *inputs, bounds = ctx.saved_tensors
    return (*_attend_bounds_grads(grad, *inputs, bounds), None)


@torch.library.custom_op("qwen_core::attend_bounds_grads", mutates_args=())
def _attend_bounds_grads(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of query, key and value; below autograd, so by the kernels' own names."""
    group, lengths = query.shape[2] // key.shape[2], list(_lengths(bounds))
    wide = [query, key.repeat_interleave(group, 2), value.repeat_interleave(group, 2), grad]
    parts = zip(*(torch.split(x.flatten(0, 1)[None].float().transpose(1, 2), lengths, 2) for x in wide), strict=True)
    grads = [_flash_grads(*part) for part in parts]
    grad_query, *rest = (torch.cat(one, 2).transpose(1, 2) for one in zip(*grads, strict=True))
    grad_key, grad_value = (x.reshape(*key.shape[:3], group, -1).sum(3).to(key.dtype) for x in rest)
    grad_query = grad_query.reshape(query.shape).to(query.dtype)
    return grad_query.contiguous(), grad_key.contiguous(), grad_value.contiguous()


def _flash_grads(query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Go through one document, all [1, H, S, D], forward and backward."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    out, logsumexp = flash(query, key, value, 0.0, True)
    return back(grad, query, key, value, out, logsumexp, 0.0, True)  # type: ignore[no-any-return]


@_attend_bounds_grads.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


_attend_bounds.register_autograd(_attend_bounds_backward, setup_context=_keep_inputs)


def _lengths(bounds: Tensor) -> tuple[int, ...]:
    """Measure the documents between bounds whose last one is repeated."""
    return tuple(length for length in bounds.diff().tolist() if length)


def _attend_varlen(query: Tensor, key: Tensor, value: Tensor, structure: Structure) -> Tensor:
    """Attend in all documents by one launch of the flash kernel; a window of (-1, 0) means causal."""
    varlen_attn = _varlen_attn()
    assert varlen_attn is not None and structure.cu_seqlens is not None
    out = varlen_attn(
        query.flatten(0, 1),
        key.flatten(0, 1),
        value.flatten(0, 1),
        structure.cu_seqlens,
        structure.cu_seqlens,
        structure.max_length,
        structure.max_length,
        window_size=(-1, 0),
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return out.view(query.shape)  # type: ignore[no-any-return]


def _attend_flex(query: Tensor, key: Tensor, value: Tensor, block_mask: Any) -> Tensor:
    """Attend by a kernel that is compiled for the mask's blocks."""
    out = _compiled_flex()(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        block_mask=block_mask,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return out.transpose(1, 2)  # type: ignore[no-any-return]


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@cache
def _varlen_attn() -> Any:
    """Find varlen attention, which torch has since 2.10; `None` before."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0) else None
