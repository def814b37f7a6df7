"""Where a training run's weights come from: whole parameters by name, one at a time, so that no worker needs them all.

    FreshWeights   seed, method ─▶ values          FolderWeights   Hugging Face folder ─▶ values
    AdaptedWeights   another source ─▶ its values, and those that adapters begin with

All are small and travel to workers by pickle: what they read is opened where it is asked for. The model itself is
built without memory, by `empty_model`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_core.artifacts import local_copy
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.parallel.layout import EMBEDDING, HEAD, Source
from qwen_core.parallel.sources import folder_source, fresh_source
from qwen_core.train.lora import Adapters, add_adapters, first_value


def empty_model(config: ModelConfig, adapters: Adapters | None = None) -> CausalLM:
    """Build a model on the meta device.

    Args:
        config: Its architecture.
        adapters: Given to it, where it is to be trained by adapters.

    Returns:
        The model, without memory for its weights.

    Raises:
        RecipeError: The adapters name a layer that is not there.
    """
    with torch.device("meta"):
        model = CausalLM(config)
    if adapters is not None:
        add_adapters(model, adapters, seed=0)  # values come from the source
    return model


@dataclass(frozen=True)
class FreshWeights:
    """Weights that a seed decides.

    Attributes:
        config: The architecture.
        seed: The recipe's.
        method: How they are drawn; see `qwen_core.model.initialise`.
        base_width: Of muP.
    """

    config: ModelConfig
    seed: int
    method: str = "normal"
    base_width: int = 256

    def __call__(self, name: str) -> Tensor:
        """Draw a parameter by its name."""
        is_tied = self.config.tie_word_embeddings and name == HEAD
        return _fresh(self)(EMBEDDING if is_tied else name)


@dataclass(frozen=True)
class FolderWeights:
    """Weights of a Hugging Face folder.

    Attributes:
        config: The architecture, with the folder's names and shapes.
        folder: With safetensors, one file or several with an index; local, or in an object store, from where each
            machine copies it once.
    """

    config: ModelConfig
    folder: str

    def __call__(self, name: str) -> Tensor:
        """Read a parameter by its name; an expert's matrices are stacked.

        Args:
            name: Of the whole model.

        Returns:
            The parameter, in the file's dtype, mapped where it lies there as it is.

        Raises:
            ArtifactError: The folder lacks it, or its file is damaged.
        """
        return _opened(self)(name)


@dataclass(frozen=True)
class AdaptedWeights:
    """Weights of a base model, and those that its adapters begin with.

    Attributes:
        base: Gives the base's.
        config: The base's architecture.
        adapters: Which and where.
        seed: Decides the adapters' first values.
    """

    base: Source
    config: ModelConfig
    adapters: Adapters
    seed: int

    def __call__(self, name: str) -> Tensor:
        """Give a parameter of the adapted model by its name."""
        layer, _, last = name.rpartition(".")
        if not last.startswith("lora_"):
            return self.base(name)
        return first_value(name, _shapes(self.config)[f"{layer}.weight"], self.adapters.rank, self.seed)


@functools.cache
def _fresh(weights: FreshWeights) -> Source:
    return fresh_source(weights.config, weights.seed, weights.method, weights.base_width)


@functools.cache
def _opened(weights: FolderWeights) -> Source:
    return folder_source(local_copy(weights.folder), weights.config)


@functools.cache
def _shapes(config: ModelConfig) -> Mapping[str, torch.Size]:
    """Tell the shapes of all parameters."""
    return {name: tensor.shape for name, tensor in empty_model(config).named_parameters(remove_duplicate=False)}
