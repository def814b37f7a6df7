"""The decoder of all four Qwen families, dense and sparse.

    ids [B, S] ─▶ embed ─▶ N x (norm ─▶ attention ─▶ + ─▶ norm ─▶ MLP or experts ─▶ +) ─▶ norm ─▶ head ─▶ logits, losses

Module names are those of Hugging Face's `Qwen3ForCausalLM` and its siblings, so that weights need no translation.
What all layers share of a batch (rotary angles, which tokens see which) is made once, by `shared_inputs`, from ids
and segments alone, so that each stage of a pipeline can make its own.

Legend: B batch, S sequence, T keys (cached and new), H heads, D head dim, E hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qwen_core.errors import RecipeError
from qwen_core.model.attention import Attention
from qwen_core.model.cache import KeyValueCache
from qwen_core.model.config import ModelConfig
from qwen_core.model.documents import CAUSAL, Structure, document_starts, document_structure
from qwen_core.model.loss import LMHead, counted_rows, token_losses
from qwen_core.model.mlp import MLP
from qwen_core.model.moe import SparseMoeBlock
from qwen_core.model.norm import RMSNorm
from qwen_core.model.rotary import Rotary, rotary_angles


@dataclass(frozen=True)
class Shared:
    """What the layers share of a batch.

    Attributes:
        rotary: Cosines and sines, each [B, S, 1, D].
        structure: Who sees whom.
        counted: [B, S], boolean, tokens that are no padding, for the routers' losses; `None` counts all.
    """

    rotary: Rotary
    structure: Structure
    counted: Tensor | None = None


def shared_inputs(
    config: ModelConfig,
    shape: tuple[int, int],
    segment_ids: Tensor | None,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    is_compiled: bool = False,
) -> Shared:
    """Make what the layers share of a batch; the same on every stage of a pipeline.

    Args:
        config: Of the model.
        shape: (B, S).
        segment_ids: [B, S], the document of each token: a run of one number is one document, below 0 is padding;
            `None` means one document a row.
        dtype: Of the hidden states.
        device: Where the layers are.
        is_compiled: Whether layers are compiled; see `document_structure`.

    Returns:
        Positions turned into angles, and the structure.
    """
    index = torch.arange(shape[1], device=device)
    if segment_ids is None:
        return Shared(rotary_angles(index[None], config, dtype), CAUSAL)
    starts = document_starts(segment_ids)
    begins = torch.where(starts, index, 0).cummax(1).values  # [B, S], where each token's document begins
    structure = document_structure(starts, dtype, is_compiled)
    counted = segment_ids >= 0 if config.num_experts else None
    return Shared(rotary_angles(index - begins, config, dtype), structure, counted)


class DecoderLayer(nn.Module):
    """One layer: attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.is_sparse = config.is_sparse(layer)
        self.self_attn = Attention(config, layer)
        self.mlp: nn.Module
        if self.is_sparse:
            self.mlp = SparseMoeBlock(config, layer)
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, shared: Shared, cache: KeyValueCache | None = None) -> Tensor:
        """Run the layer.

        Args:
            x: [B, S, E].
            shared: Of the batch.
            cache: Extended in place where given.

        Returns:
            [B, S, E].
        """
        x = x + self.self_attn(self.input_layernorm(x), shared.rotary, shared.structure, cache)
        normed = self.post_attention_layernorm(x)
        if self.is_sparse:
            return x + self.mlp(normed, shared.counted)  # type: ignore[no-any-return]
        return x + self.mlp(normed)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embedding, layers, final norm: everything below the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = "none"
        self.is_compiled = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor | None = None,
        cache: KeyValueCache | None = None,
        shared: Shared | None = None,
    ) -> Tensor:
        """Map ids to hidden states.

        Args:
            input_ids: [B, S], int64.
            segment_ids: [B, S]; see `shared_inputs`.
            cache: Of earlier tokens; only without segments.
            shared: Made by the caller, instead of from the segments.

        Returns:
            [B, S, E].
        """
        x = self.embed_tokens(input_ids)
        if shared is None and cache is not None:
            shared = cached_inputs(self.config, input_ids, cache, x.dtype)
        elif shared is None:
            shape = (input_ids.shape[0], input_ids.shape[1])
            shared = shared_inputs(
                self.config, shape, segment_ids, dtype=x.dtype, device=x.device, is_compiled=self.is_compiled
            )
        can_checkpoint = self.training and torch.is_grad_enabled()
        for number, layer in enumerate(self.layers):
            if can_checkpoint and is_checkpointed(self.gradient_checkpointing, number):
                x = checkpoint(layer, x, shared, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, shared, cache)
        return self.norm(x)  # type: ignore[no-any-return]


class CausalLM(nn.Module):
    """The language model: decoder and head."""

    def __init__(self, config: ModelConfig, gradient_checkpointing: str = "none") -> None:
        """Build the modules; weights come from `initialise` or a folder.

        Args:
            config: The architecture.
            gradient_checkpointing: Which layers keep only their input for the backward pass; see `is_checkpointed`.
        """
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = LMHead(config.hidden_size, config.vocab_size)
        self.gradient_checkpointing = gradient_checkpointing
        self.tie_weights()

    @property
    def gradient_checkpointing(self) -> str:
        """Which layers keep only their input for the backward pass; may be set."""
        return self.model.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, policy: str) -> None:
        is_checkpointed(policy, 0)  # refuses an unknown one
        self.model.gradient_checkpointing = policy

    def tie_weights(self) -> None:
        """Make the head the embedding again, where the architecture has it so and loading gave each its own."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Compute logits, or with `labels` each token's loss.

        Args:
            input_ids: [B, S], int64.
            segment_ids: [B, S], which document each token belongs to: a run of one number is one document, below 0 is
                padding; `None` means one document a sequence.
            labels: [B, S], int64; `labels[:, i]` is what position `i - 1` should predict, `IGNORE` counts nothing.
            cache: Of earlier tokens; only without segments.

        Returns:
            Logits [B, S, V] in the weights' dtype; with labels, negative log-likelihoods [B, S] in fp32 and nats,
            0 where ignored and at position 0, which nothing predicts.
        """
        if labels is None:
            return self.lm_head(self.model(input_ids, segment_ids, cache))  # type: ignore[no-any-return]
        counted = counted_rows(labels)
        hidden = self.model(input_ids, segment_ids, cache)  # [B, S, E]
        return token_losses(hidden, labels, self.lm_head, counted)

    def compile_layers(self, **options: Any) -> None:
        """Compile each layer by itself, in place: one kernel set serves all layers, and names stay as they are.

        Args:
            **options: Of `torch.compile`.
        """
        self.model.is_compiled = True
        for layer in self.model.layers:
            layer.compile(**options)


def is_checkpointed(policy: str, layer: int) -> bool:
    """Say whether a layer is computed again in the backward pass instead of kept (Chen et al., 2016, arXiv 1604.06174).

    Args:
        policy: `none`; `full` for every layer; `every_2`, `every_3`, ... for each second, third, ...
        layer: From 0.

    Returns:
        Whether it is.

    Raises:
        RecipeError: No such policy.
    """
    if policy in ("none", "full"):
        return policy == "full"
    kind, _, step = policy.partition("_")
    if kind != "every" or not step.isdigit() or int(step) < 1:
        raise RecipeError(f"gradient_checkpointing is '{policy}'; choose none, full, or every_2, every_3, ...")
    return layer % int(step) == 0


def cached_inputs(config: ModelConfig, input_ids: Tensor, cache: KeyValueCache, dtype: torch.dtype) -> Shared:
    """Make what the layers share of new tokens that follow cached ones, one document a row."""
    start, length = cache.length, input_ids.shape[1]
    positions = torch.arange(start, start + length, device=input_ids.device)
    rotary = rotary_angles(positions[None], config, dtype)
    if start == 0 or length == 1:
        return Shared(rotary, CAUSAL)
    keys = torch.arange(start + length, device=input_ids.device)
    return Shared(rotary, Structure(mask=(keys[None, :] <= positions[:, None])[None, None]))
