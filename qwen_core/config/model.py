"""Recipe section `model`: the architecture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from qwen_core.config.base import Count, Section


class Model(Section):
    """Architecture, in the words of Hugging Face's `config.json` for Qwen3."""

    model_type: Literal["qwen3"] = "qwen3"
    hidden_size: Count = 256
    intermediate_size: Count = 768
    num_hidden_layers: Count = 4
    num_attention_heads: Count = 4
    num_key_value_heads: Count = 2
    head_dim: Count = 64
    max_position_embeddings: Count = 2048
    rope_theta: float = Field(10_000.0, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(0.02, gt=0)
    vocab_size: Count | None = Field(None, description="Taken from the tokenizer where it is not given.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: rotary embeddings turn pairs")
        return self
