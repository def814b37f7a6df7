"""Recipe sections of training: model, parallel, pretrain, sft, dpo, evaluate, release."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from qwen_core.config.base import Count, Ratio, Section


class Model(Section):
    """Architecture, in the words of Hugging Face's `config.json` for Qwen3."""

    model_type: Literal["qwen3"] = "qwen3"
    hidden_size: Count = 256
    intermediate_size: Count = 768
    num_hidden_layers: Count = 4
    num_attention_heads: Count = 4
    num_key_value_heads: Count = 2
    head_dim: Count = 64
    max_position_embeddings: Count = 2048
    rope_theta: float = Field(10_000.0, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(0.02, gt=0)
    vocab_size: Count | None = Field(None, description="Taken from the tokenizer where it is not given.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: rotary embeddings turn pairs")
        return self


class Parallel(Section):
    """How a model is spread over workers."""

    num_workers: Count = Field(2, description="Processes that Ray Train starts.")
    use_gpu: bool = Field(False, description="One GPU for each worker.")
    cpus_per_worker: float = Field(1.0, gt=0, description="Ray's share for each.")
    threads_per_worker: Count = Field(1, description="torch's threads in each.")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        3, description="DeepSpeed: 1 spreads optimizer state, 2 gradients, 3 weights."
    )


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


class Sft(Optimiser):
    """Supervised fine-tuning."""

    max_steps: Count = 60
    learning_rate: float = Field(3e-4, gt=0)
    warmup_steps: int = Field(5, ge=0)


class Dpo(Optimiser):
    """Direct preference optimisation (Rafailov et al., 2023)."""

    max_steps: Count = 40
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(4, ge=0)
    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference model.")
    sft_weight: float = Field(0.2, ge=0, description="Weight of the chosen reply's own loss (Pang et al., 2024).")


class Sampling(Section):
    """How sample generations are drawn; the figures of Qwen2.5's own `generation_config.json`."""

    temperature: float = Field(0.7, ge=0, description="0 takes the most likely token.")
    top_k: int = Field(20, ge=0, description="Among so many of the likeliest tokens; 0 among all.")
    top_p: float = Field(0.8, gt=0, le=1, description="Among the fewest tokens that hold this much probability.")
    repetition_penalty: float = Field(1.1, ge=1, description="Above 1, tokens that have occurred become less likely.")


class Evaluate(Section):
    """Measures of the finished models and sample generations."""

    prompts: dict[str, str] = Field(
        default_factory=lambda: {
            "zh": "请用两句话介绍一下月亮。",
            "en": "Why do leaves change colour in autumn?",
            "code": "Write a Python function that returns the largest number in a list.",
        },
        description="One sample is generated for each.",
    )
    max_new_tokens: Count = Field(96, description="Upper bound of a sample.")
    sampling: Sampling = Field(default_factory=Sampling)


class Release(Section):
    """Registration in MLflow and the champion's gate."""

    model_name: str = Field("qwen-core-demo", min_length=1, description="In MLflow's registry.")
    max_bits_per_byte_regression_ratio: Ratio = Field(
        0.01, description="A challenger may be this much worse in bits per byte and still become champion."
    )
