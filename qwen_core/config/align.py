"""Recipe sections `sft` and `dpo`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from qwen_core.config.base import Count, Section
from qwen_core.config.training import Optimiser


class Lora(Section):
    """Low-rank adapters (Hu et al., 2021): the model is frozen, small matrices beside its layers learn."""

    enabled: bool = Field(False, description="Train adapters instead of all weights; ZeRO alone.")
    rank: Count = Field(16, description="Width of an adapter.")
    alpha: float = Field(32.0, gt=0, description="Strength: the update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of a layer's inputs that its adapter does not see.")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Linear layers that get an adapter, by the last part of their names.",
    )
    use_rslora: bool = Field(
        False, description="Scale by alpha / sqrt(rank) (Kalajdzievski, 2023): for ranks above 32 or so."
    )


class Tuning(Optimiser):
    """What fine-tuning stages share beyond training."""

    lora: Lora = Lora()


class Sft(Tuning):
    """Supervised fine-tuning."""

    max_steps: Count = 60
    learning_rate: float = Field(3e-4, gt=0)
    warmup_steps: int = Field(5, ge=0)
    packing: bool = Field(
        False, description="Several conversations in a row, which do not see each other; a batch counts rows then."
    )
    packed_seq_len: Count | None = Field(
        None, description="Tokens of a packed row; those of instruct.max_seq_len where it is not given."
    )


class Dpo(Tuning):
    """Direct preference optimisation (Rafailov et al., 2023)."""

    max_steps: Count = 40
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(4, ge=0)
    loss: Literal["sigmoid", "robust", "hinge", "ipo"] = Field(
        "sigmoid", description="DPO's own; robust to mislabelled pairs; SLiC's hinge; IPO, per token."
    )
    beta: float = Field(0.1, gt=0, description="Strength of the pull towards the reference model.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Share of pairs thought to be labelled the wrong way round: sigmoid, robust."
    )
    sft_weight: float = Field(0.2, ge=0, description="Weight of the chosen reply's own loss (Pang et al., 2024).")

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> Dpo:
        if self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            raise ValueError(
                f"label_smoothing ({self.label_smoothing}) has no meaning for the loss '{self.loss}': "
                f"set it to 0, or take sigmoid or robust"
            )
        return self
