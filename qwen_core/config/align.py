"""Recipe sections `sft` and `dpo`."""

from __future__ import annotations

from pydantic import Field

from qwen_core.config.base import Count
from qwen_core.config.training import Optimiser


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
