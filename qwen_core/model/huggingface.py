"""Model folders in Hugging Face's form: `config.json`, `generation_config.json`, `model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.model.config import ModelConfig
from qwen_core.model.decoder import CausalLM

_WEIGHTS = "model.safetensors"


def save_pretrained(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    folder: str | Path,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
) -> None:
    """Write a model folder that this package, transformers and vLLM open.

    Args:
        config: The architecture.
        state: The full state dict; a tied head may be in it or not.
        folder: Made where it is missing.
        eos_token_id: Ends a generation.
        pad_token_id: Fills batches.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    kept = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if not (config.tie_word_embeddings and name == "lm_head.weight")
    }
    save_file(kept, place / _WEIGHTS, metadata={"format": "pt"})
    dtype = str(next(iter(kept.values())).dtype).removeprefix("torch.")
    tree = config.to_json(dtype, eos_token_id, pad_token_id)
    (place / "config.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    ends = [token for token in dict.fromkeys((eos_token_id, pad_token_id)) if token is not None]
    generation = {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "eos_token_id": ends,
        "pad_token_id": pad_token_id,
    }
    (place / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def load_pretrained(folder: str | Path, dtype: torch.dtype = torch.float32) -> CausalLM:
    """Read a model folder.

    Args:
        folder: With `config.json` and safetensors, one file or sharded with an index.
        dtype: Of the weights in memory.

    Returns:
        The model, on the CPU, in training mode.

    Raises:
        ArtifactError: Files are missing, or tensors do not fit the architecture.
    """
    place = Path(folder)
    if not (place / "config.json").is_file():
        raise ArtifactError(f"{place} holds no config.json: it is not a model folder")
    config = ModelConfig.from_json(place / "config.json")
    files = sorted(place.glob("*.safetensors"))
    if not files:
        raise ArtifactError(f"{place} holds no .safetensors file; weights in pickle form are never loaded")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= load_file(file)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    with torch.device("meta"):
        model = CausalLM(config)
    try:
        model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise ArtifactError(f"the weights in {place} do not fit its config.json: {error}") from error
    if config.tie_word_embeddings:  # 'assign' gave the two names their own parameters
        model.lm_head.weight = model.model.embed_tokens.weight
    return model
