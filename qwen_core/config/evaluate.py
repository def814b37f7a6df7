"""Recipe sections `evaluate` and `release`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section


class Sampling(Section):
    """How sample generations are drawn; the figures of Qwen2.5's own `generation_config.json`."""

    temperature: float = Field(0.7, ge=0, description="0 takes the most likely token.")
    top_k: int = Field(20, ge=0, description="Among so many of the likeliest tokens; 0 among all.")
    top_p: float = Field(0.8, gt=0, le=1, description="Among the fewest tokens that hold this much probability.")
    repetition_penalty: float = Field(1.1, ge=1, description="Above 1, tokens that have occurred become less likely.")


class Tasks(Section):
    """Tasks of lm-evaluation-harness: multiple choice and generation (`pip install 'qwen-core[eval]'`)."""

    names: tuple[str, ...] = Field((), description="Its task names, such as ceval-valid or gsm8k; none runs nothing.")
    include_path: str | None = Field(None, description="Folder with task files of your own, which may run code.")
    models: tuple[Literal["pretrain", "sft", "dpo"], ...] = Field(("dpo",), description="Which models are measured.")
    num_fewshot: int | None = Field(None, ge=0, description="Worked examples in each prompt; the task's own number.")
    limit: Count | None = Field(None, description="Questions of each task; all where it is not given.")
    batch_size: Count = Field(8, description="Questions in one pass.")
    apply_chat_template: bool = Field(False, description="Ask as a user's turn.")
    allow_downloads: bool = Field(False, description="Let it fetch data sets from Hugging Face's hub.")


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
    tasks: Tasks = Field(default_factory=Tasks)


class Release(Section):
    """Registration in MLflow and the champion's gate."""

    model_name: str = Field("qwen-core-demo", min_length=1, description="In MLflow's registry.")
    max_bits_per_byte_regression_ratio: Ratio = Field(
        0.01, description="A challenger may be this much worse in bits per byte and still become champion."
    )
    max_language_regression_ratio: Ratio = Field(
        0.05, description="The same for each language by itself, which is measured on less text."
    )
    min_language_bytes: Count = Field(
        20_000, description="Bytes of held-out text below which a language is told, but does not decide."
    )
    max_preference_accuracy_drop: Ratio = Field(
        0.05, description="How far the preference accuracy may fall, such as from 0.70 to 0.65."
    )
    max_answer_loss_regression_ratio: Ratio = Field(
        0.05, description="A challenger's loss on held-out answers may be this much higher."
    )
    approval: bool = Field(False, description="A challenger that passes waits for a person instead of being promoted.")
    language: Literal["en", "zh"] = Field("en", description="Of the model card and the release notes.")
    licence: str | None = Field(None, description="Of the model, for its card, such as apache-2.0.")
    intended_use: str | None = Field(None, description="A sentence or two for the model card.")
