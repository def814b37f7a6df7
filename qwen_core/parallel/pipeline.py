"""The model as a pipeline: consecutive layers on each stage, each layer perhaps split inside (`tensor`).

    stage 0: embed, layers 0 .. a ─▶ [B, S, E] ─▶ stage 1: layers a .. b ─▶ ... ─▶ last: layers .. N, norm, head

Only hidden states travel. Every worker of a model's copy has the batch itself, so that positions and document
boundaries are made anew on each stage instead of being sent. Each worker builds its own layers alone, and fills them
one tensor at a time.

Legend: B batch, S sequence, E hidden.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any

import torch
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qwen_core.model import ModelConfig
from qwen_core.model.decoder import DecoderLayer, Shared, is_checkpointed
from qwen_core.model.loss import token_losses
from qwen_core.model.norm import RMSNorm
from qwen_core.parallel.layout import TIED, Source, rule_of, to_hugging_face_name
from qwen_core.parallel.tensor import TensorGroup, VocabularyShare, share_of, split_layer


class Stages(PipelineModule):  # type: ignore[misc]
    """This worker's stage of the model, and its share of each layer there.

    Attributes:
        shared: What the layers need of the micro-batch that goes through next; set before each pass.
        labels: Of that micro-batch, and the rows that they count for; on the last stage alone.
        tensor_group: The workers that share each layer.
    """

    def __init__(
        self,
        config: ModelConfig,
        bounds: Sequence[int],
        *,
        tensor: int,
        data: int,
        sequence_parallel: bool,
        gradient_checkpointing: str,
    ) -> None:
        """Build this worker's layers, unfilled; torch.distributed must be up.

        Args:
            config: Of the whole model.
            bounds: Where each stage begins in the list of embedding, layers, norm and head, and its end.
            tensor: Workers that share each layer.
            data: Copies of the model.
            sequence_parallel: Whether the residual stream is split along the sequence.
            gradient_checkpointing: Which layers keep only their input; see `qwen_core.model.decoder.is_checkpointed`.
        """
        # Set before nn.Module is ready, because DeepSpeed's constructor builds the layers
        self.config, self._bounds, self._tensor = config, list(bounds), tensor
        self._is_sequence_parallel = sequence_parallel and tensor > 1
        self._gradient_checkpointing = gradient_checkpointing
        self.shared: Shared | None = None
        self.labels: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        os.environ.setdefault("LOCAL_RANK", "0")
        topology = PipeModelDataParallelTopology(num_pp=len(bounds) - 1, num_mp=tensor, num_dp=data)
        self.tensor_group = TensorGroup()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how it seeds and partitions, which it does not
            super().__init__(layers=self._specs(), topology=topology)

    def _partition_layers(self, method: str = "") -> None:
        """Take the plan's bounds, after the process groups exist and before the layers are built."""
        grid = self._grid
        self.tensor_group = TensorGroup(
            grid.get_slice_parallel_rank(), self._tensor, grid.get_slice_parallel_group(), self._is_sequence_parallel
        )
        self.parts = self._bounds
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

    def _specs(self) -> list[Any]:
        config = self.config
        layers = [LayerSpec(_Layer, self, number) for number in range(config.num_hidden_layers)]
        norm = LayerSpec(_Norm, config)
        if not config.tie_word_embeddings:
            return [LayerSpec(_Embedding, self), *layers, norm, LayerSpec(_Head, self)]
        tied = [TiedLayerSpec(TIED, _Vocabulary, self, forward_fn=end) for end in (_embed, _pass)]
        return [tied[0], *layers, norm, tied[1]]

    def forward(self, x: Tensor) -> Tensor:
        """Map ids [B, S], or hidden states, to hidden states, or on the last stage to token losses [B, S].

        The losses are computed here and not afterwards, because in bf16 DeepSpeed clears all gradients at the moment
        when the backward pass reaches the stage's output.
        """
        shared = self.shared
        for number, function in enumerate(self.forward_funcs, self._local_start):
            if torch.is_grad_enabled() and self._is_checkpointed(number):
                # torch's, which unlike DeepSpeed's keeps what it was called with beside the tensors
                x = checkpoint(function, x, shared, use_reentrant=False, preserve_rng_state=False)
            else:
                x = function(x, shared)
        if self.labels is None:
            return x
        labels, counted = self.labels
        return token_losses(x[:, : labels.shape[1]], labels, self.head.losses, counted)

    def _is_checkpointed(self, number: int) -> bool:
        """Say whether a place in the pipeline is a layer that keeps only its input."""
        layer = number - 1
        return 0 <= layer < self.config.num_hidden_layers and is_checkpointed(self._gradient_checkpointing, layer)

    @property
    def head(self) -> VocabularyShare:
        """The head; on the last stage alone."""
        head: VocabularyShare = self.tied_modules[TIED] if self.config.tie_word_embeddings else self.forward_funcs[-1]
        return head

    def named_weights(self) -> dict[str, nn.Parameter]:
        """Give this worker's shares by Hugging Face name; a tied head's stands for the embedding's too."""
        return {to_hugging_face_name(name, self.config): weight for name, weight in self.named_parameters()}

    @torch.no_grad()
    def fill(self, source: Source) -> None:
        """Fill the weights, each from its share of the whole tensor, and mark those that are split for DeepSpeed.

        Args:
            source: Gives whole tensors by Hugging Face name; asked for this worker's alone, one at a time.
        """
        group = self.tensor_group
        for name, weight in self.named_weights().items():
            rule = rule_of(name, self.config, group.size)
            weight.copy_(rule.take(source(name), group.rank, group.size))
            # DeepSpeed counts weights without the mark once for the group in the gradient norm
            is_split = rule.dimension is not None and group.size > 1
            weight.tensor_model_parallel = is_split  # type: ignore[attr-defined]

    def summed_weights(self) -> list[nn.Parameter]:
        """List the weights that all workers of a tensor group hold, each with a summand of the gradient."""
        group = self.tensor_group
        if group.size == 1:
            return []
        chosen = []
        for name, weight in sorted(self.named_weights().items()):
            rule = rule_of(name, self.config, group.size)
            if rule.is_summed or (rule.is_summed_with_sequences and group.is_sequence_parallel):
                chosen.append(weight)
        return chosen


class _Vocabulary(VocabularyShare):
    """The embedding that is the head too."""

    def __init__(self, stages: Stages) -> None:
        super().__init__(stages.config, stages.tensor_group)


class _Embedding(_Vocabulary):
    """An embedding of its own."""

    def forward(self, input_ids: Tensor, shared: Shared) -> Tensor:
        """Map ids [B, S] to [B, S, E]."""
        return self.embed(input_ids)


class _Head(_Vocabulary):
    """A head of its own. As a layer it only gathers; see `Stages.forward`."""

    def forward(self, x: Tensor, shared: Shared) -> Tensor:
        """Map [B, S or S/t, E] to [B, S, E]."""
        return self.group.enter(x)


class _Layer(DecoderLayer):
    """A decoder layer with this worker's share."""

    def __init__(self, stages: Stages, layer: int) -> None:
        super().__init__(share_of(stages.config, stages.tensor_group.size), layer)
        split_layer(self, stages.config, stages.tensor_group)


class _Norm(RMSNorm):
    """The last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, shared: Shared) -> Tensor:  # type: ignore[override]
        """Map [B, S, E] to [B, S, E]."""
        return super().forward(x)


def _embed(vocabulary: VocabularyShare, input_ids: Tensor, shared: Shared) -> Tensor:
    return vocabulary.embed(input_ids)


def _pass(vocabulary: VocabularyShare, x: Tensor, shared: Shared) -> Tensor:
    return vocabulary.group.enter(x)
