"""Model folders in Hugging Face's form: `config.json`, `generation_config.json`, safetensors.

    state in memory ─▶ experts one by one ─▶ shards ─▶ folder ─▶ shards ─▶ experts stacked ─▶ model built without memory

Weights stream both ways: a model larger than the memory's free part passes through.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qwen_core.errors import ArtifactError
from qwen_core.model.config import ModelConfig
from qwen_core.model.decoder import CausalLM
from qwen_core.model.experts import split_experts, stack_experts
from qwen_core.model.shards import Named, named, read_shards, write_shards

_SHARD_BYTES = 5_000_000_000
_HEAD = "lm_head.weight"
# Buffers that early checkpoints carry; they follow from config.json.
_DERIVED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")
# What Qwen2.5's instruction models suggest; shown to transformers and vLLM as their default.
_SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.8}


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that a model folder names.

    Attributes:
        eos: Each of them ends a generation.
        pad: Fills batches.
        bos: Begins a document.
    """

    eos: tuple[int, ...]
    pad: int | None
    bos: int | None


def save_pretrained(
    config: ModelConfig,
    state: Mapping[str, Tensor] | Iterable[Named],
    folder: str | Path,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    *,
    bos_token_id: int | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Write a model folder that this package, transformers and vLLM open.

    Args:
        config: The architecture.
        state: The full state, as a mapping or one tensor after the other; a tied head may be in it or not.
        folder: Made where it is missing.
        eos_token_id: Ends a generation.
        pad_token_id: Fills batches.
        bos_token_id: Begins a document; `None` takes `pad_token_id`.
        dtype: Of the weights in the files; `None` keeps each tensor's own.
        max_shard_bytes: Weights beyond this are split into several files.

    Raises:
        ArtifactError: There are no weights.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    seen: list[torch.dtype] = []

    def kept() -> Iterator[Named]:
        for name, tensor in state.items() if isinstance(state, Mapping) else state:
            if not (config.tie_word_embeddings and name == _HEAD):
                seen.append(dtype or tensor.dtype)
                yield name, tensor.detach().to(seen[-1])

    write_shards(split_experts(kept()), place, max_shard_bytes)
    if not seen:
        raise ArtifactError(f"no weights were given to be saved in {place}; gather the state on this worker first")
    tree = config.to_json(str(seen[0]).removeprefix("torch."), eos_token_id, pad_token_id, bos_token_id)
    _write(place / "config.json", tree)
    ends = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id or ())
    ends = [token for token in dict.fromkeys((*ends, pad_token_id)) if token is not None]
    ids = {"bos_token_id": tree["bos_token_id"], "eos_token_id": ends or None, "pad_token_id": pad_token_id}
    _write(place / "generation_config.json", _SAMPLING | ids)


def load_pretrained(
    folder: str | Path,
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> CausalLM:
    """Read a model folder.

    Args:
        folder: With `config.json` and safetensors, one file or sharded with an index.
        dtype: Of the weights in memory; `None` keeps that of the files, mapped and not copied on a CPU.
        device: Each tensor is laid there as it is read.

    Returns:
        The model, in training mode.

    Raises:
        ArtifactError: Files are missing or damaged, or tensors do not fit the architecture.
    """
    config = read_config(folder)
    with torch.device("meta"):
        model = CausalLM(config)
    return fill(model, load_state(folder, dtype), device, str(folder))


def load_state(folder: str | Path, dtype: torch.dtype | None = None) -> Iterator[Named]:
    """Read a model folder's weights one after the other, under the names that a `CausalLM` has.

    Args:
        folder: With `config.json` and safetensors.
        dtype: Of the tensors; `None` keeps that of the files.

    Yields:
        Names and tensors, on the CPU; experts stacked.

    Raises:
        ArtifactError: Files are missing or damaged, or an expert is missing.
    """
    config = read_config(folder)
    tensors = (pair for pair in read_shards(Path(folder)) if not pair[0].endswith(_DERIVED))
    for name, tensor in stack_experts(tensors, config.num_experts):
        yield name, tensor if dtype is None else tensor.to(dtype)


def fill(
    model: CausalLM, state: Iterable[Named], device: torch.device | str = "cpu", place: str = "the state"
) -> CausalLM:
    """Give a model its weights, each laid in place as it comes.

    Args:
        model: On any device, `meta` included.
        state: Every weight of the model, in any order; a tied head may be in it or not.
        device: Of the weights.
        place: Where the state is from, for messages.

    Returns:
        The same model.

    Raises:
        ArtifactError: Weights are missing, unknown or of another shape.
    """
    is_tied = model.config.tie_word_embeddings
    wanted = {name: list(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    missing = set(wanted) - ({_HEAD} if is_tied else set())
    unknown, misshapen = [], []
    for name, tensor in state:
        if name not in wanted:
            unknown.append(name)
        elif list(tensor.shape) != wanted[name]:
            misshapen.append(f"{name} is {list(tensor.shape)}, not {wanted[name]}")
            missing.discard(name)
        elif not (is_tied and name == _HEAD):
            _lay(model, name, tensor.to(device))
            missing.discard(name)
    faults = {"missing": sorted(missing), "unknown": unknown, "of another shape": misshapen}
    told = "; ".join(f"{what}: {named(names)}" for what, names in faults.items() if names)
    if told:
        raise ArtifactError(
            f"the weights in {place} do not fit its config.json ({model.config.model_type}): {told}. "
            "Take config.json and weights from one model"
        )
    model.tie_weights()
    return model


def read_config(folder: str | Path) -> ModelConfig:
    """Read a model folder's architecture.

    Args:
        folder: With `config.json`.

    Returns:
        The architecture.

    Raises:
        ArtifactError: There is none, or it is not computed here.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no config.json: it is not a model folder")
    return ModelConfig.from_json(path)


def read_special_ids(folder: str | Path) -> SpecialIds:
    """Read which tokens end, fill and begin; `generation_config.json` says it before `config.json`.

    Args:
        folder: A model folder.

    Returns:
        The ids.

    Raises:
        ArtifactError: A file is damaged.
    """
    tree: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        path = Path(folder) / name
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise ArtifactError(f"{path} cannot be read as JSON ({error}); copy it again") from error
        tree |= {key: value for key, value in found.items() if value is not None}
    eos = tree.get("eos_token_id", [])
    ends = (eos,) if isinstance(eos, int) else tuple(eos)
    return SpecialIds(ends, tree.get("pad_token_id"), tree.get("bos_token_id"))


def _lay(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make a tensor the parameter of its name."""
    module, _, leaf = name.rpartition(".")
    owner = model.get_submodule(module)
    owner.register_parameter(leaf, nn.Parameter(tensor, requires_grad=owner.get_parameter(leaf).requires_grad))


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
