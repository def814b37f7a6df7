"""Recipe section `retrain`: when a scheduled retraining is worth its while, and what it goes on from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section


class Retrain(Section):
    """What `qwen-core retrain`, and the DAG of that name, decide before anything is run."""

    init_from: Literal["champion", "scratch"] = Field(
        "champion", description="Weights that pretraining goes on from; where there is no champion it starts anew."
    )
    corpus_from: str = Field(
        "newest",
        min_length=1,
        description="Corpus that new files are added to: newest of the model's retrainings, nothing, or a run key.",
    )
    min_new_files: Count = Field(1, description="Fewer new files wait for the next time.")
    min_new_bytes: int = Field(1, ge=0, description="Fewer raw bytes of new files wait for the next time.")
    max_tokenizer_drift_ratio: float = Field(
        0.05,
        ge=0,
        description="The tokenizer is kept until it takes this share more tokens for a byte of held-out text than when "
        "it was trained.",
    )
    steps_ratio: Annotated[float, Field(gt=0, le=100)] = Field(
        0.25, description="Optimiser steps of a pretraining that goes on, as a share of pretrain.max_steps."
    )
    warmup_ratio: Ratio = Field(0.05, description="Share of these steps in which the learning rate rises again.")
    learning_rate_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Top of the learning rate when pretraining goes on, as a share of the first run's."
    )
    new_weight: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0,
        description="How often new documents are taken when pretraining goes on; the whole corpus is replayed beside "
        "them.",
    )
    replay_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="How often the documents of the corpus so far are taken; below 1 a share of them, by hash."
    )
    stale_after_hours: float = Field(
        12.0,
        ge=0,
        description="A retraining of which nothing was heard for so long counts as given up: longer than the longest "
        "stage. One whose last stage failed counts so after an hour.",
    )
    max_attempts: Count = Field(3, description="How often one retraining is begun before it is left alone.")
