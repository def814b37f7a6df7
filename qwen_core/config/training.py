"""Recipe section `pretrain`, and what all training stages share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section


class Optimiser(Section):
    """What all training stages share."""

    max_steps: Count = Field(200, description="Optimiser steps.")
    micro_batch_size: Count = Field(4, description="Sequences on one worker in one pass.")
    global_batch_size: Count = Field(8, description="Sequences in one optimiser step over all workers.")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon (Jordan, 2024) turns the matrices of the layers, AdamW the rest."
    )
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's, at the top of the schedule.")
    muon_learning_rate: float = Field(0.02, gt=0, description="Muon's, of the same schedule.")
    min_learning_rate_ratio: Ratio = Field(0.1, description="Where the cosine ends, as a share of its top.")
    warmup_steps: int = Field(20, ge=0, description="Steps of linear rise.")
    weight_decay: float = Field(0.1, ge=0, description="Of matrices; norms decay nothing.")
    beta1: Ratio = Field(0.9, description="AdamW's.")
    beta2: Ratio = Field(0.95, description="AdamW's.")
    grad_clip: float = Field(1.0, gt=0, description="Largest gradient norm; Muon's updates have a norm of their own.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="bf16 keeps fp32 master weights.")
    min_validation_points: int = Field(10, ge=2, description="Points of the validation curve, first and last included.")
    log_every_steps: Count = Field(5, description="Steps between two points of the training curve.")
    checkpoint_every_steps: Count = Field(100, description="A killed run goes on from the last one.")
    max_failures: int = Field(2, ge=0, description="Worker failures after which training gives up.")


class Pretrain(Optimiser):
    """Pretraining from scratch."""
