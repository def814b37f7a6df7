"""A model's architecture, as it stands in Hugging Face's `config.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_core.errors import ArtifactError


@dataclass(frozen=True)
class ModelConfig:
    """Figures of a Qwen3 dense decoder (Qwen3 technical report, arXiv 2505.09388), in Hugging Face's words."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    model_type: str = "qwen3"

    def to_json(self, dtype: str, eos_token_id: int | None, pad_token_id: int | None) -> dict[str, Any]:
        """Write the content of `config.json`, as transformers and vLLM read it.

        Args:
            dtype: Of the weights, such as `bfloat16`.
            eos_token_id: Ends a generation.
            pad_token_id: Fills batches.

        Returns:
            Plain JSON.
        """
        return {
            "architectures": ["Qwen3ForCausalLM"],
            **dataclasses.asdict(self),
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "bos_token_id": pad_token_id,
            "eos_token_id": eos_token_id,
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
            ArtifactError: The file is of a family that this model does not compute.
        """
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree.get("model_type") != "qwen3":
            raise ArtifactError(f"{path}: model_type is '{tree.get('model_type')}', only 'qwen3' can be loaded")
        rope = tree.get("rope_parameters") or {}
        tree.setdefault("rope_theta", rope.get("rope_theta", cls.rope_theta))
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in tree.items() if name in names})
