"""Recipe sections `evaluate` and `release`."""

from __future__ import annotations

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section


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
