"""Grouped-query attention over packed documents.

    x [B, S, E] ─▶ q, k, v ─▶ (norm of each head) ─▶ rotate ─▶ attend ─▶ o_proj ─▶ [B, S, E]

Legend: B batch, S sequence, T keys (cached and new), H heads, K key/value heads, D head dim, E hidden.
"""

from __future__ import annotations

from torch import Tensor, nn

from qwen_core.model.cache import KeyValueCache
from qwen_core.model.config import ModelConfig
from qwen_core.model.documents import Structure, attend
from qwen_core.model.norm import RMSNorm
from qwen_core.model.rotary import Rotary, rotate


class Attention(nn.Module):
    """Grouped-query attention; Qwen2 has a bias on its inputs, Qwen3 a norm on each head's queries and keys.

    Heads are counted from what the projections give, so that they may be replaced by ones that hold a share.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.has_qk_norm = layer, config.head_dim, config.has_qk_norm
        self.q_proj = nn.Linear(config.hidden_size, config.query_size, bias=config.has_qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.key_size, bias=config.has_qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.key_size, bias=config.has_qkv_bias)
        self.o_proj = nn.Linear(config.query_size, config.hidden_size, bias=False)
        if self.has_qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: Rotary, structure: Structure, cache: KeyValueCache | None = None) -> Tensor:
        """Attend.

        Args:
            x: [B, S, E].
            rotary: Cosines and sines, each [B, S, 1, D].
            structure: Who sees whom.
            cache: Extended in place where given.

        Returns:
            [B, S, E].
        """
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        query = query.view(*query.shape[:2], -1, self.head_dim)  # [B, S, H, D]
        key = key.view(*key.shape[:2], -1, self.head_dim)  # [B, S, K, D]
        value = value.view(*value.shape[:2], -1, self.head_dim)  # [B, S, K, D]
        if self.has_qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, rotary), rotate(key, rotary)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)  # [B, T, K, D]
        return self.o_proj(attend(query, key, value, structure).flatten(2))  # type: ignore[no-any-return]
