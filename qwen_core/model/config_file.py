"""What a `config.json` says, in this package's words: other names, defaults left out, settings that are not computed.

config.json of transformers 4 or 5 ─▶ refuse what is not computed ─▶ figures under one name each
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_core.errors import ArtifactError

ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
"""Each family and the name of its class in transformers and vLLM."""

_THETA_WHERE_NONE_IS_GIVEN = 10_000.0
SPARSE_FIELDS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "router_aux_loss_coef",
    "router_z_loss_coef",
)
# What transformers takes where a sparse family's config.json leaves a field out.
SPARSE_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2_moe": {
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    },
    "qwen3_moe": {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
}
_ROPE_FIELDS = (
    "factor",
    "original_max_position_embeddings",
    "rope_type",
    "beta_fast",
    "beta_slow",
    "attention_factor",
)
# Settings of transformers that change nothing at these values.
_HARMLESS_ROPE = {("truncate", True), ("partial_rotary_factor", 1.0), ("finetuned", True)}


def named_as_here(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Take the figures; a null stands for transformers' default."""
    figures = {name: value for name, value in tree.items() if value is not None}
    if "num_local_experts" in figures:
        figures.setdefault("num_experts", figures["num_local_experts"])
    if "num_attention_heads" in figures:
        figures.setdefault("num_key_value_heads", figures["num_attention_heads"])
    if tree.get("model_type") == "qwen3":
        figures.setdefault("head_dim", 128)
    figures.setdefault("tie_word_embeddings", False)
    return figures


def refuse_what_is_not_computed(tree: Mapping[str, Any], place: str) -> None:
    """Raise where a setting would change the result and is not implemented."""
    family = tree["model_type"]
    layer_types = tree.get("layer_types") or []
    rules = [
        ("hidden_act", tree.get("hidden_act", "silu"), "silu"),
        ("attention_dropout", tree.get("attention_dropout") or 0.0, 0.0),
        ("use_sliding_window", bool(tree.get("use_sliding_window")), False),
        ("layer_types", sorted(set(layer_types)), ["full_attention"] if layer_types else []),
        ("quantization_config", tree.get("quantization_config"), None),
    ]
    if family == "qwen2_moe":
        rules.append(("qkv_bias", tree.get("qkv_bias", True), True))
    elif family.startswith("qwen3"):
        rules.append(("attention_bias", bool(tree.get("attention_bias")), False))
    for name, value, computed in rules:
        if value != computed:
            raise ArtifactError(
                f"{place}: {name} is {value}, only {computed} is computed for {family}; choose a model without it, "
                f"or set it to {computed} where the weights were trained so"
            )


def rope_figures(tree: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Read theta and scaling, from `rope_parameters` or from `rope_theta` and `rope_scaling`."""
    rope: dict[str, Any] = dict(tree.get("rope_scaling") or tree.get("rope_parameters") or {})
    theta = rope.get("rope_theta") or (tree.get("rope_parameters") or {}).get("rope_theta") or tree.get("rope_theta")
    figures: dict[str, Any] = {"rope_theta": float(theta or _THETA_WHERE_NONE_IS_GIVEN), "rope_scaling": None}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return figures
    ignored = {"rope_type", "type", "rope_theta"}
    known = set(_ROPE_FIELDS)
    strange = {name: value for name, value in rope.items() if name not in known | ignored and value is not None}
    strange = {name: value for name, value in strange.items() if (name, value) not in _HARMLESS_ROPE}
    if kind != "yarn" or strange:
        raise ArtifactError(
            f"{place}: RoPE of type '{kind}' with {strange or 'its settings'} is not computed, only 'default' and "
            "'yarn' (factor, original_max_position_embeddings, beta_fast, beta_slow, attention_factor); choose these"
        )
    scaling = {name: value for name, value in rope.items() if name in known and value is not None}
    scaling |= {"rope_type": "yarn"}
    original = scaling.setdefault("original_max_position_embeddings", tree.get("max_position_embeddings", 32_768))
    scaling.setdefault("factor", max(1.0, tree.get("max_position_embeddings", original) / original))
    return figures | {"rope_scaling": scaling}
