"""Recipe section `model`: the architecture, how fresh weights are drawn, what is recomputed."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qwen_core.config.base import Count, Section

_SPARSE_TYPES = ("qwen2_moe", "qwen3_moe")
_SPARSE_FIELDS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "router_aux_loss",
    "router_aux_loss_coef",
    "router_z_loss_coef",
)
_NOT_ARCHITECTURE = {"vocab_size", "init", "init_base_width", "gradient_checkpointing", "router_aux_loss"}


class RopeScaling(Section):
    """YaRN (Peng et al., 2023): rotary embeddings stretched to sequences longer than trained."""

    rope_type: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1, description="How many times longer.")
    original_max_position_embeddings: Count = Field(description="Positions that the model was trained with.")
    beta_fast: float = Field(32.0, gt=0, description="Pairs that turn more often over the trained length stay.")
    beta_slow: float = Field(1.0, gt=0, description="Pairs that turn less often are interpolated in full.")
    attention_factor: float | None = Field(None, gt=0, description="Of cosines and sines; else 0.1 ln(factor) + 1.")


class Model(Section):
    """Architecture, in the words of Hugging Face's `config.json`, and how its weights start."""

    model_type: Literal["qwen2", "qwen3", "qwen2_moe", "qwen3_moe"] = Field(
        "qwen3", description="qwen2 has a bias on queries, keys and values; qwen3 norms queries and keys instead."
    )
    hidden_size: Count = Field(256, description="Width of the residual stream.")
    intermediate_size: Count = Field(768, description="Width of a dense layer's MLP.")
    num_hidden_layers: Count = 4
    num_attention_heads: Count = 4
    num_key_value_heads: Count = Field(2, description="Divides the attention heads; fewer save cache.")
    head_dim: Count = Field(64, description="Width of a head, even.")
    max_position_embeddings: Count = Field(2048, description="Longest sequence.")
    rope_theta: float = Field(10_000.0, gt=0, description="Base of the rotary wavelengths; longer texts want more.")
    rope_scaling: RopeScaling | None = Field(None, description="YaRN: factor, original_max_position_embeddings, ...")
    rms_norm_eps: float = Field(1e-6, gt=0)
    tie_word_embeddings: bool = Field(True, description="The head is the embedding: fewer parameters in small models.")
    vocab_size: Count | None = Field(None, description="Taken from the tokenizer where it is not given.")
    num_experts: int = Field(0, ge=0, description="Of a sparse layer; 0 in the dense families.")
    num_experts_per_tok: int = Field(0, ge=0, description="How many of them a token meets.")
    moe_intermediate_size: int = Field(0, ge=0, description="Width of one expert.")
    shared_expert_intermediate_size: int = Field(
        0, ge=0, description="Width of the expert that every token meets; qwen2_moe alone."
    )
    norm_topk_prob: bool = Field(False, description="The chosen experts' weights are scaled to a sum of 1.")
    decoder_sparse_step: Count = Field(1, description="Each so-manieth layer is sparse.")
    mlp_only_layers: tuple[int, ...] = Field((), description="Layers that stay dense, counted from 0.")
    router_aux_loss: Literal["micro_batch", "global_batch"] = Field(
        "global_batch",
        description="Where the experts' load is balanced: in each pass, or over all workers and passes of a step, "
        "which lets experts specialise (Qiu et al., 2025).",
    )
    router_aux_loss_coef: float = Field(0.001, ge=0, description="Weight of the load-balancing loss, for each layer.")
    router_z_loss_coef: float = Field(
        0.0, ge=0, description="Weight of the squared log-sum of the router's logits (ST-MoE: 0.001)."
    )
    initializer_range: float = Field(0.02, gt=0, description="Standard deviation of fresh weights.")
    init: Literal["normal", "xavier", "kaiming", "mup"] = Field(
        "normal", description="normal scales residual outputs by 1/sqrt(2 layers); mup scales with width."
    )
    init_base_width: Count = Field(256, description="hidden_size at which init mup's learning rate was tuned.")
    gradient_checkpointing: bool = Field(
        False, description="Layers keep only their inputs and are computed anew in the backward pass."
    )

    def architecture(self) -> dict[str, Any]:
        """Give the figures that a `ModelConfig` takes; the vocabulary is the tokenizer's to say.

        Returns:
            Plain values by name.
        """
        return self.model_dump(exclude=_NOT_ARCHITECTURE)

    @property
    def is_sparse(self) -> bool:
        """Whether the family has experts."""
        return self.model_type in _SPARSE_TYPES

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}): each key head serves a group of query heads; change one of them"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: rotary embeddings turn pairs")
        return self

    @model_validator(mode="after")
    def _mup_has_a_head_of_its_own(self) -> Self:
        if self.init == "mup" and self.tie_word_embeddings:
            raise ValueError(
                "init 'mup' scales the head with the width and the embedding not, so they cannot be one: "
                "set tie_word_embeddings to false, or choose another init"
            )
        return self

    @model_validator(mode="after")
    def _positions_reach(self) -> Self:
        scaling = self.rope_scaling
        if scaling and self.max_position_embeddings > scaling.factor * scaling.original_max_position_embeddings:
            raise ValueError(
                f"max_position_embeddings ({self.max_position_embeddings}) is more than rope_scaling stretches to: "
                f"factor {scaling.factor:g} x {scaling.original_max_position_embeddings}; raise the factor"
            )
        return self

    @model_validator(mode="after")
    def _experts_belong_to_a_sparse_family(self) -> Self:
        if not self.is_sparse:
            fields = type(self).model_fields
            given = [name for name in _SPARSE_FIELDS if getattr(self, name) != fields[name].default]
            if given:
                raise ValueError(
                    f"model_type '{self.model_type}' is dense, but {', '.join(given)} "
                    f"{'is' if len(given) == 1 else 'are'} set: choose qwen2_moe or qwen3_moe, or drop them"
                )
            return self
        missing = [n for n in ("num_experts", "num_experts_per_tok", "moe_intermediate_size") if not getattr(self, n)]
        if missing:
            raise ValueError(f"model_type '{self.model_type}' needs {', '.join(missing)}: give at least 1")
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) is more than num_experts ({self.num_experts}): "
                f"a token cannot meet an expert twice; lower it"
            )
        return self

    @model_validator(mode="after")
    def _sparse_layers_exist(self) -> Self:
        if not self.is_sparse:
            return self
        if (self.model_type == "qwen2_moe") != (self.shared_expert_intermediate_size > 0):
            raise ValueError(
                f"shared_expert_intermediate_size is {self.shared_expert_intermediate_size}: qwen2_moe needs a shared "
                f"expert, qwen3_moe has none; model_type is '{self.model_type}'"
            )
        strange = [layer for layer in self.mlp_only_layers if not 0 <= layer < self.num_hidden_layers]
        if strange:
            raise ValueError(
                f"mlp_only_layers {strange} are not among the layers 0 to {self.num_hidden_layers - 1}: drop them"
            )
        step, dense = self.decoder_sparse_step, self.mlp_only_layers
        if all((layer + 1) % step or layer in dense for layer in range(self.num_hidden_layers)):
            raise ValueError(
                f"no layer is sparse with decoder_sparse_step {step} and mlp_only_layers {list(dense)} of "
                f"{self.num_hidden_layers} layers: lower the step, or choose a dense model_type"
            )
        return self
