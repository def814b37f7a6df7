"""Where the weights of a spread model come from, one whole tensor at a time: drawn anew, or a model folder.

Each worker asks for what lies on it alone, so that none ever holds the whole model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.model.experts import stack_experts
from qwen_core.model.initialise import initial_value
from qwen_core.model.shards import read_shards
from qwen_core.parallel.layout import EMBEDDING, HEAD, Source


def fresh_source(config: ModelConfig, seed: int, method: str = "normal", base_width: int = 256) -> Source:
    """Draw weights as `initialise` does for a whole model.

    Args:
        config: Of the whole model.
        seed: Decides every weight.
        method: One of `qwen_core.model.initialise.METHODS`.
        base_width: See `initialise`.

    Returns:
        The source; fp32.
    """
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in CausalLM(config).named_parameters()}
    return lambda name: initial_value(name, shapes[name], config, method, seed, base_width=base_width)


def folder_source(folder: str | Path, config: ModelConfig) -> Source:
    """Read weights of a Hugging Face folder, each mapped from its file until it is asked for.

    Args:
        folder: With safetensors; experts by themselves, as they are published, or stacked.
        config: The folder's.

    Returns:
        The source, in the files' dtype. It raises `ArtifactError` for a tensor that the folder does not have.
    """
    mapped = dict(read_shards(Path(folder)))

    def source(name: str) -> Tensor:
        if name == HEAD and config.tie_word_embeddings:
            name = EMBEDDING
        if name in mapped:
            return mapped[name]
        if name.endswith((".experts.gate_up_proj", ".experts.down_proj")):
            return _stacked(mapped, name, config.num_experts)
        raise ArtifactError(f"{folder} has no tensor {name}; copy the model folder again")

    return source


def _stacked(mapped: dict[str, Tensor], name: str, num_experts: int) -> Tensor:
    """Stack the experts of a layer: [X, 2I, E] or [X, E, I]."""
    prefix, _, kind = name.rpartition(".")
    parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
    names = [f"{prefix}.{expert}.{part}.weight" for expert in range(num_experts) for part in parts]
    lacks = [one for one in names if one not in mapped]
    if lacks:
        raise ArtifactError(f"{len(lacks)} matrices of experts are missing, the first of them {lacks[0]}")
    return dict(stack_experts(((one, mapped[one]) for one in names), num_experts))[name]
