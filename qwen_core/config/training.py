"""Recipe section `pretrain`, and what all training stages share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from qwen_core.config.base import Count, Ratio, Section
from qwen_core.config.guards import Guards


class Optimiser(Section):
    """What all training stages share."""

    neutral: ClassVar[frozenset[str]] = frozenset(
        # how a batch is cut into passes and how a layer is compiled change rounding alone
        {"micro_batch_size", "compile", "max_failures"}
        | {"checkpoint_every_steps", "checkpoint_every_seconds", "keep_checkpoints"}
    )

    max_steps: Count = Field(200, description="Optimiser steps.")
    micro_batch_size: Count = Field(4, description="Sequences on one worker in one pass.")
    global_batch_size: Count = Field(8, description="Sequences in one optimiser step over all workers.")
    batch_ramp_start: Count | None = Field(
        None, description="Sequences in the first step, a divisor of global_batch_size; none for no ramp."
    )
    batch_ramp_steps: int = Field(0, ge=0, description="Steps in which the batch grows to global_batch_size.")
    optimizer: Literal["adamw", "lamb", "muon"] = Field(
        "adamw",
        description="lamb (You et al., 2020) for very large batches; muon (Jordan et al., 2024) turns the matrices of "
        "the layers, AdamW the rest.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Of AdamW and LAMB, at the top of the schedule.")
    muon_learning_rate: float = Field(0.02, gt=0, description="Muon's, of the same schedule.")
    muon_momentum: Ratio = Field(0.95, description="Muon's.")
    schedule: Literal["cosine", "wsd", "linear", "constant"] = Field(
        "cosine", description="After the warm-up; wsd (Hu et al., 2024) stays at the top and falls at the end."
    )
    min_learning_rate_ratio: Ratio = Field(0.1, description="Where the schedule ends, as a share of its top.")
    warmup_steps: int = Field(20, ge=0, description="Steps of linear rise.")
    decay_ratio: Ratio = Field(0.1, description="Share of the run in which wsd falls.")
    decay_shape: Literal["sqrt", "linear"] = Field(
        "sqrt", description="How wsd falls: 1 - sqrt(x) (Hägele et al., 2024) or 1 - x."
    )
    weight_decay: float = Field(0.1, ge=0, description="Of matrices; norms and biases decay nothing.")
    decay_embeddings: bool = Field(True, description="Whether embeddings and the head decay too.")
    beta1: Ratio = Field(0.9, description="Decay of the first moment.")
    beta2: Ratio = Field(0.95, description="Decay of the second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    grad_clip: float = Field(1.0, ge=0, description="Largest gradient norm, 0 for any.")
    precision: Literal["bf16", "fp16", "fp32"] = Field(
        "bf16",
        description="bf16 and fp16 keep fp32 master weights; fp16 scales the loss as it goes and needs a GPU.",
    )
    compile: bool = Field(False, description="torch.compile of each layer: slower to start, faster steps.")
    min_validation_points: int = Field(10, ge=2, description="Points of the validation curve, first and last included.")
    log_every_steps: Count = Field(5, description="Steps between two points of the training curve.")
    checkpoint_every_steps: Count = Field(100, description="A killed run goes on from the last one.")
    checkpoint_every_seconds: float = Field(0.0, ge=0, description="And after so many seconds; 0 is never.")
    keep_checkpoints: Count = Field(2, description="Older ones are deleted; with 1 a damaged one leaves nothing.")
    use_best_checkpoint: bool = Field(
        False, description="Leave the weights of the lowest validation loss instead of the last ones."
    )
    max_failures: int = Field(2, ge=0, description="Worker failures after which training gives up.")
    guards: Guards = Field(Guards(), description="When a step is bad, what is done, and when a person is told.")

    @model_validator(mode="after")
    def _ramp_fits(self) -> Optimiser:
        start = self.batch_ramp_start
        if (start is None) != (self.batch_ramp_steps == 0):
            raise ValueError(
                f"batch_ramp_start ({start}) and batch_ramp_steps ({self.batch_ramp_steps}) go together: "
                f"set both or none"
            )
        if start is not None and self.global_batch_size % start:
            raise ValueError(
                f"batch_ramp_start ({start}) must divide global_batch_size ({self.global_batch_size}): the batch grows "
                f"in multiples of it"
            )
        return self


class Continued(Section):
    """A pretraining that goes on from `init_from`: a warm-up and a decay of its own (Ibrahim et al., 2024)."""

    steps_ratio: Annotated[float, Field(gt=0, le=100)] = Field(1.0, description="Of pretrain.max_steps, at least one.")
    warmup_ratio: Ratio | None = Field(None, description="Of these steps, instead of pretrain.warmup_steps.")
    learning_rate_ratio: Annotated[float, Field(gt=0, le=100)] = Field(1.0, description="Of the learning rates' top.")


class Pretrain(Optimiser):
    """Pretraining from scratch, or from weights that exist."""

    later: ClassVar[frozenset[str]] = frozenset({"if_new_tokenizer", "continued"})

    init_from: str | None = Field(
        None,
        description="Weights to start from, and their architecture: a folder, a run key, a manifest's URI, or "
        "models:/NAME@ALIAS; tokenizer.import_path must name their tokenizer.",
    )
    if_new_tokenizer: Literal["refuse", "start_anew"] = Field(
        "refuse",
        description="Where the corpus has another tokenizer than the weights to start from: stop with an error, or "
        "start from a seed.",
    )
    continued: Continued = Field(Continued(), description="How it goes on from init_from.")
