"""Where each weight of a model lies when it is split by layers and inside them: one table for all who must know.

    pipeline's name  3.self_attn.q_proj.weight [rows/t, E]  ◀─▶  model.layers.2.self_attn.q_proj.weight [rows, E]

Loading and initialising take a share of a whole tensor by a rule, `parameters()` puts the shares together again, and so
does the conversion of checkpoints between plans.

Legend: t workers of a tensor group, E hidden, X experts, I an expert's intermediate size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.model import ModelConfig

TIED = "embed_tokens"
"""Key of the embedding that is the head too."""
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
_NORM = "model.norm.weight"


@dataclass(frozen=True)
class Rule:
    """How a tensor is split over a tensor group.

    Attributes:
        dimension: Which is cut; `None` where all workers hold the whole.
        parts: Stacked matrices along it, each of which is cut by itself: 2 for an expert's gate and up projection.
        is_summed: Whether each worker's gradient of a tensor that all hold is only a summand.
        is_summed_with_sequences: The same, under sequence parallelism alone.
    """

    dimension: int | None = None
    parts: int = 1
    is_summed: bool = False
    is_summed_with_sequences: bool = False

    def take(self, whole: Tensor, rank: int, size: int) -> Tensor:
        """Cut out one worker's share.

        Args:
            whole: The full tensor.
            rank: The worker's place in its tensor group.
            size: Workers of the group.

        Returns:
            A view, or a new tensor where stacked matrices are cut.
        """
        if self.dimension is None or size == 1:
            return whole
        cuts = [part.chunk(size, self.dimension)[rank] for part in whole.chunk(self.parts, self.dimension)]
        return cuts[0] if self.parts == 1 else torch.cat(cuts, self.dimension)

    def join(self, shares: Sequence[Tensor]) -> Tensor:
        """Put the shares of all workers together.

        Args:
            shares: By rank in the tensor group.

        Returns:
            The full tensor.
        """
        if self.dimension is None or len(shares) == 1:
            return shares[0]
        if self.parts == 1:
            return torch.cat(list(shares), self.dimension)
        pieces = [share.chunk(self.parts, self.dimension) for share in shares]
        return torch.cat([piece[part] for part in range(self.parts) for piece in pieces], self.dimension)


_ROWS, _COLUMNS = Rule(0), Rule(1)
_KEPT = Rule(is_summed_with_sequences=True)
_KEPT_IN_REGION = Rule(is_summed=True)
_TABLE = (
    (re.compile(r"self_attn\.q_proj\.(weight|bias)$"), _ROWS),
    (re.compile(r"(gate_proj|up_proj)\.weight$"), _ROWS),
    (re.compile(r"(embed_tokens|lm_head)\.weight$"), _ROWS),
    (re.compile(r"(o_proj|down_proj)\.weight$"), _COLUMNS),
    (re.compile(r"experts\.gate_up_proj$"), Rule(1, parts=2)),  # [X, 2I, E]
    (re.compile(r"experts\.down_proj$"), Rule(2)),  # [X, E, I]
    (re.compile(r"self_attn\.[qk]_norm\.weight$"), _KEPT_IN_REGION),
    (re.compile(r"mlp\.(gate|shared_expert_gate)\.weight$"), _KEPT_IN_REGION),
    (re.compile(r"(input_layernorm|post_attention_layernorm|model\.norm)\.weight$"), _KEPT),
)
_KEYS_AND_VALUES = re.compile(r"self_attn\.[kv]_proj\.(weight|bias)$")


def rule_of(name: str, config: ModelConfig, tensor: int) -> Rule:
    """Find how a tensor is split.

    Args:
        name: Hugging Face's, as the model has it in memory.
        config: Of the whole model.
        tensor: Workers of a tensor group.

    Returns:
        The rule.

    Raises:
        ArtifactError: The table does not know the name.
    """
    if _KEYS_AND_VALUES.search(name):
        return _ROWS if config.num_key_value_heads >= tensor else _KEPT_IN_REGION
    for pattern, rule in _TABLE:
        if pattern.search(name):
            return rule
    raise ArtifactError(f"{name} has no rule for tensor parallelism; add one to qwen_core/parallel/layout.py")


def to_pipeline_name(name: str, config: ModelConfig) -> str:
    """Name a tensor as the pipeline's module does: by the place of its layer in the whole pipeline.

    Args:
        name: Hugging Face's.
        config: Of the whole model.

    Returns:
        Such as `3.self_attn.q_proj.weight`.
    """
    layers = config.num_hidden_layers
    if name in (EMBEDDING, HEAD) and config.tie_word_embeddings:
        return f"tied_modules.{TIED}.weight"
    fixed = {EMBEDDING: "0.weight", _NORM: f"{layers + 1}.weight", HEAD: f"{layers + 2}.weight"}
    if name in fixed:
        return fixed[name]
    _, _, number, rest = name.split(".", 3)
    return f"{int(number) + 1}.{rest}"


def to_hugging_face_name(name: str, config: ModelConfig) -> str:
    """Name a tensor as Hugging Face does; the inverse of `to_pipeline_name`.

    Args:
        name: The pipeline's.
        config: Of the whole model.

    Returns:
        Such as `model.layers.2.self_attn.q_proj.weight`.
    """
    if name == f"tied_modules.{TIED}.weight":
        return EMBEDDING
    place, rest = name.split(".", 1)
    number = int(place)
    fixed = {0: EMBEDDING, config.num_hidden_layers + 1: _NORM, config.num_hidden_layers + 2: HEAD}
    return fixed.get(number, f"model.layers.{number - 1}.{rest}")


Source = Callable[[str], Tensor]
"""Gives a whole tensor by its Hugging Face name, as the model has it in memory; the same on each worker."""


def in_order(names: Iterable[str]) -> list[str]:
    """Sort Hugging Face names as the layers follow each other: embedding, layers by number, norm, head."""

    def place(name: str) -> tuple[int, int, str]:
        match = re.match(r"model\.layers\.(\d+)\.", name)
        if match:
            return (1, int(match[1]), name)
        return ({EMBEDDING: 0, _NORM: 2}.get(name, 3), 0, name)

    return sorted(names, key=place)
