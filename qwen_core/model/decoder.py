"""The Qwen3 decoder: RoPE, grouped-query attention with QK-norm, SwiGLU, RMSNorm.

    ids [B, S] ─▶ embed ─▶ N x (norm ─▶ attention ─▶ + ─▶ norm ─▶ SwiGLU ─▶ +) ─▶ norm ─▶ head ─▶ logits [B, S, V]

Module names are those of Hugging Face's `Qwen3ForCausalLM`, so that weights need no translation. Documents
packed into one sequence do not see each other: `segment_ids` gives a block-diagonal causal mask, and positions
start anew at each document.

Legend: B batch, S sequence, T keys (cached and new), H heads, K key/value heads, D head dim, E hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qwen_core.model.config import ModelConfig

IGNORE = -100
"""A label that counts for no loss."""

_LOSS_CHUNK_TOKENS = 2048


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich, 2019), computed in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x`, of any shape and dtype."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


@dataclass
class KeyValueCache:
    """Keys and values of the tokens seen so far, one pair of [B, K, T, D] for each layer."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens that are cached."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's new keys and values [B, K, S, D]; return all of them [B, K, T, D]."""
        if layer == len(self.layers):
            self.layers.append((keys, values))
        else:
            before = self.layers[layer]
            self.layers[layer] = (torch.cat((before[0], keys), 2), torch.cat((before[1], values), 2))
        return self.layers[layer]


class Attention(nn.Module):
    """Grouped-query attention with a norm on each head's queries and keys."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.is_grouped = query_size != key_size
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        """Attend.

        Args:
            x: [B, S, E].
            rotary: Cosines and sines, each [B, 1, S, D].
            mask: Boolean [B, 1, S, T], true where a query may look; `None` means plain causal.
            cache: Extended in place where given.

        Returns:
            [B, S, E].
        """
        shape = (*x.shape[:2], -1, self.head_dim)
        query = rotate(self.q_norm(self.q_proj(x).view(shape)).transpose(1, 2), rotary)  # [B, H, S, D]
        key = rotate(self.k_norm(self.k_proj(x).view(shape)).transpose(1, 2), rotary)  # [B, K, S, D]
        value = self.v_proj(x).view(shape).transpose(1, 2)  # [B, K, S, D]
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)  # [B, K, T, D]
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=self.is_grouped
        )
        return self.o_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, E] to [B, S, E]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """One layer: attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        """Map [B, S, E] to [B, S, E]; arguments as in `Attention`."""
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embedding, layers, final norm: everything below the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, mask: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        """Map ids [B, S] to hidden states [B, S, E]."""
        x = self.embed_tokens(input_ids)
        rotary = rotary_angles(position_ids, self.config.head_dim, self.config.rope_theta, x.dtype)
        for layer in self.layers:
            x = layer(x, rotary, mask, cache)
        return self.norm(x)  # type: ignore[no-any-return]


class CausalLM(nn.Module):
    """The language model: decoder and head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Compute logits, or with `labels` each token's loss.

        Args:
            input_ids: [B, S], int64.
            segment_ids: [B, S], which document each token belongs to; `None` means one document a sequence.
            labels: [B, S], int64; `labels[:, i]` is what position `i - 1` should predict, `IGNORE` counts nothing.
            cache: Of earlier tokens; only without segments.

        Returns:
            Logits [B, S, V] in the weights' dtype; with labels, negative log-likelihoods [B, S] in fp32 and nats,
            0 where ignored and at position 0, which nothing predicts.
        """
        positions, mask = positions_and_mask(input_ids, segment_ids, cache)
        hidden = self.model(input_ids, positions, mask, cache)  # [B, S, E]
        if labels is None:
            return self.lm_head(hidden)  # type: ignore[no-any-return]
        return F.pad(self._token_losses(hidden[:, :-1], labels[:, 1:]), (1, 0))

    def _token_losses(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of [B, S, E] against [B, S], a chunk of tokens at a time.

        Logits of a whole batch are its largest tensor by far; each chunk's are made again in the backward pass.
        """
        flat, targets = hidden.flatten(0, 1), labels.flatten()
        if len(flat) <= _LOSS_CHUNK_TOKENS:
            return self._chunk_losses(flat, targets).view(labels.shape)
        losses = [
            checkpoint(self._chunk_losses, part, target, use_reentrant=False)
            for part, target in zip(flat.split(_LOSS_CHUNK_TOKENS), targets.split(_LOSS_CHUNK_TOKENS), strict=True)
        ]
        return torch.cat(losses).view(labels.shape)

    def _chunk_losses(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.lm_head(hidden).float(), labels, ignore_index=IGNORE, reduction="none")


def positions_and_mask(
    input_ids: Tensor, segment_ids: Tensor | None, cache: KeyValueCache | None
) -> tuple[Tensor, Tensor | None]:
    """Derive positions [B, S], and a boolean mask [B, 1, S, T] where plain causal attention is not enough."""
    batch, length = input_ids.shape
    index = torch.arange(length, device=input_ids.device)
    if segment_ids is None:
        start = cache.length if cache is not None else 0
        positions = (index + start).expand(batch, length)
        if start == 0:
            return positions, None
        keys = torch.arange(start + length, device=input_ids.device)
        return positions, (keys[None, :] <= (index + start)[:, None])[None, None]
    is_start = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)
    starts = torch.where(is_start, index, 0).cummax(1).values  # [B, S], where each token's document begins
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]  # [B, 1, S, S]
    return index - starts, same & (index[None, :] <= index[:, None])


def rotary_angles(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute RoPE's cosines and sines (Su et al., 2021), [B, 1, S, D] each, for positions [B, S].

    Angles are made in fp32 whatever the weights are: in bf16, positions above 256 would collapse.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() / theta**exponents  # [B, 1, S, D/2]
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + D/2) of [B, H, S, D] by their angles, as Hugging Face lays them out."""
    first, second = x.chunk(2, -1)
    return x * rotary[0] + torch.cat((-second, first), -1) * rotary[1]


def initialise(model: CausalLM, seed: int) -> None:
    """Fill the weights in place: normal with `initializer_range`, residual outputs scaled down with depth.

    Scaling o_proj and down_proj by 1/sqrt(2 N) keeps the residual stream's variance level (GPT-2).

    Args:
        model: On any device, not meta.
        seed: Decides every weight.
    """
    generator = torch.Generator().manual_seed(seed)
    std = model.config.initializer_range
    residual_std = std / (2 * model.config.num_hidden_layers) ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
            continue
        chosen = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else std
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * chosen)
