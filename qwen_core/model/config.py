"""A model's architecture, as it stands in Hugging Face's `config.json`.

    config.json of transformers 4 or 5 ─▶ refuse what is not computed ─▶ ModelConfig ─▶ config.json of both

Four families: `qwen2` (Qwen2 and 2.5, arXiv 2407.10671, 2412.15115), `qwen3` (arXiv 2505.09388), `qwen2_moe`
(Qwen1.5-MoE, Qwen2-57B-A14B) and `qwen3_moe`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_core.errors import ArtifactError, RecipeError
from qwen_core.model.config_file import (
    ARCHITECTURES,
    SPARSE_DEFAULTS,
    SPARSE_FIELDS,
    named_as_here,
    refuse_what_is_not_computed,
    rope_figures,
)


@dataclass(frozen=True)
class RopeScaling:
    """YaRN (Peng et al., 2023, arXiv 2309.00071): rotary embeddings stretched to longer sequences.

    Attributes:
        factor: How many times longer than trained, at least 1.
        original_max_position_embeddings: Positions that the model was trained with.
        rope_type: `yarn` is the only one.
        beta_fast: Pairs that turn more often than this over the trained length stay as they are.
        beta_slow: Pairs that turn less often are interpolated in full; between the two, in part.
        attention_factor: Cosines and sines are multiplied by it; `None` takes the paper's 0.1 ln(factor) + 1.
    """

    factor: float
    original_max_position_embeddings: int
    rope_type: str = "yarn"
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        if self.rope_type != "yarn":
            raise RecipeError(f"rope_scaling.rope_type is '{self.rope_type}', only 'yarn' is computed; use it or none")
        if self.factor < 1:
            raise RecipeError(f"rope_scaling.factor is {self.factor}, YaRN stretches: give 1 or more")


@dataclass(frozen=True)
class ModelConfig:
    """Figures of a Qwen decoder, in Hugging Face's words.

    Attributes:
        vocab_size: Rows of the embedding.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of a dense layer's MLP.
        num_hidden_layers: Count of layers.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads; divides the query heads.
        head_dim: Width of a head, even; 0 takes `hidden_size / num_attention_heads`.
        max_position_embeddings: Longest sequence.
        rope_theta: Base of the rotary embedding's wavelengths.
        rms_norm_eps: Keeps norms finite.
        tie_word_embeddings: Whether the head is the embedding.
        initializer_range: Standard deviation of fresh weights.
        model_type: One of `ARCHITECTURES`.
        rope_scaling: For sequences longer than trained.
        num_experts: Of a sparse layer; 0 makes all layers dense.
        num_experts_per_tok: How many of them a token meets.
        moe_intermediate_size: Width of one expert.
        shared_expert_intermediate_size: Width of the expert that every token meets; `qwen2_moe` alone.
        norm_topk_prob: Whether the chosen experts' weights are scaled to a sum of 1.
        decoder_sparse_step: Each so-manieth layer is sparse.
        mlp_only_layers: These stay dense.
        router_aux_loss_coef: Weight of the load-balancing loss.
        router_z_loss_coef: Weight of the router's z-loss.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 0
    max_position_embeddings: int = 32_768
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    model_type: str = "qwen3"
    rope_scaling: RopeScaling | None = None
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    router_aux_loss_coef: float = 0.001
    router_z_loss_coef: float = 0.0

    def __post_init__(self) -> None:
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if isinstance(self.rope_scaling, Mapping):
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        object.__setattr__(self, "mlp_only_layers", tuple(self.mlp_only_layers))
        self._check_attention()
        self._check_experts()

    @property
    def has_qkv_bias(self) -> bool:
        """Whether queries, keys and values have a bias."""
        return self.model_type.startswith("qwen2")

    @property
    def has_qk_norm(self) -> bool:
        """Whether each head's queries and keys are normed."""
        return self.model_type.startswith("qwen3")

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.num_key_value_heads * self.head_dim

    def is_sparse(self, layer: int) -> bool:
        """Say whether a layer's MLP is a mixture of experts.

        Args:
            layer: From 0.

        Returns:
            As transformers decides it.
        """
        return (
            self.num_experts > 0 and layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0
        )

    def to_json(
        self,
        dtype: str,
        eos_token_id: int | Sequence[int] | None,
        pad_token_id: int | None,
        bos_token_id: int | None = None,
    ) -> dict[str, Any]:
        """Write the content of `config.json`, as transformers and vLLM read it.

        Args:
            dtype: Of the weights, such as `bfloat16`.
            eos_token_id: Ends a generation.
            pad_token_id: Fills batches.
            bos_token_id: Begins a document; `None` takes `pad_token_id`, as Qwen's own files do.

        Returns:
            Plain JSON.
        """
        tree = dataclasses.asdict(self) | {"mlp_only_layers": list(self.mlp_only_layers)}
        if self.model_type in SPARSE_DEFAULTS:
            # the second is transformers 5's name for it in qwen3_moe
            tree |= {"num_local_experts": self.num_experts, "output_router_logits": False}
        else:
            tree = {name: value for name, value in tree.items() if name not in SPARSE_FIELDS}
        tree |= {"qkv_bias": True} if self.model_type == "qwen2_moe" else {}
        tree |= {"attention_bias": False} if self.has_qk_norm else {}
        return {
            "architectures": [ARCHITECTURES[self.model_type]],
            **tree,
            **self._rope_json(),
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": self.num_hidden_layers,
            "use_cache": True,
            "bos_token_id": pad_token_id if bos_token_id is None else bos_token_id,
            "eos_token_id": list(eos_token_id) if isinstance(eos_token_id, Sequence) else eos_token_id,
            "pad_token_id": pad_token_id,
            "dtype": dtype,
            "torch_dtype": dtype,  # the name before transformers 5
        }

    @classmethod
    def from_json(cls, path: Path) -> ModelConfig:
        """Read `config.json`.

        Args:
            path: The file.

        Returns:
            The figures that the model needs.

        Raises:
            ArtifactError: The file is no JSON, lacks a figure, or asks for what this model does not compute.
        """
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ArtifactError(f"{path} cannot be read as JSON ({error}); copy the model folder again") from error
        return cls.from_tree(tree, str(path))

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], place: str = "config.json") -> ModelConfig:
        """Read the content of a `config.json`.

        Args:
            tree: Plain JSON.
            place: Named in errors.

        Returns:
            The figures that the model needs.

        Raises:
            ArtifactError: A figure is missing, or asks for what this model does not compute.
        """
        family = tree.get("model_type")
        if family not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ArtifactError(f"{place}: model_type is '{family}', only {known} can be loaded; choose such a model")
        refuse_what_is_not_computed(tree, place)
        figures = SPARSE_DEFAULTS.get(family, {}) | named_as_here(tree)
        figures |= rope_figures(tree, place)
        if family not in SPARSE_DEFAULTS:  # a dense file may carry such words, which transformers ignores too
            figures = {name: value for name, value in figures.items() if name not in SPARSE_FIELDS}
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{name: value for name, value in figures.items() if name in names and value is not None})
        except (TypeError, RecipeError) as error:
            raise ArtifactError(f"{place} does not describe a model: {error}") from error

    def _rope_json(self) -> dict[str, Any]:
        """Give RoPE's figures under the names of transformers 5, and of those before it."""
        if self.rope_scaling is None:
            return {"rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta}, "rope_scaling": None}
        scaling = {name: value for name, value in dataclasses.asdict(self.rope_scaling).items() if value is not None}
        return {
            "rope_parameters": scaling | {"rope_theta": self.rope_theta},
            "rope_scaling": scaling | {"type": scaling["rope_type"]},
        }

    def _check_attention(self) -> None:
        if self.model_type not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise RecipeError(f"model_type is '{self.model_type}', only {known} are computed; choose one of them")
        if self.num_attention_heads % self.num_key_value_heads:
            raise RecipeError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}), for each key head serves a whole group; change one of them"
            )
        if self.head_dim % 2:
            raise RecipeError(f"head_dim ({self.head_dim}) must be even, for rotary embeddings turn pairs; change it")

    def _check_experts(self) -> None:
        if not self.num_experts:
            return
        if self.model_type not in SPARSE_DEFAULTS:
            families = ", ".join(SPARSE_DEFAULTS)
            raise RecipeError(
                f"num_experts is {self.num_experts} but model_type '{self.model_type}' is dense; choose one of "
                f"{families}, or num_experts 0"
            )
        if not 0 < self.num_experts_per_tok <= self.num_experts or self.moe_intermediate_size < 1:
            raise RecipeError(
                f"a token must meet 1 to num_experts ({self.num_experts}) experts of a width above 0; "
                f"num_experts_per_tok is {self.num_experts_per_tok}, moe_intermediate_size {self.moe_intermediate_size}"
            )
        if (self.model_type == "qwen2_moe") != (self.shared_expert_intermediate_size > 0):
            raise RecipeError(
                f"shared_expert_intermediate_size is {self.shared_expert_intermediate_size}: qwen2_moe needs a shared "
                f"expert and qwen3_moe has none; model_type is '{self.model_type}'"
            )


def yarn_attention_factor(scaling: RopeScaling) -> float:
    """Give the factor of cosines and sines, so that the attention logits grow by its square.

    Args:
        scaling: YaRN's figures.

    Returns:
        The given factor, or 0.1 ln(factor) + 1 (arXiv 2309.00071, section 3.4).
    """
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
