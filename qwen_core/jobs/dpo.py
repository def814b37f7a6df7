"""`dpo`: fine-tuned model and preference pairs ─▶ an aligned model.

Reads `sft`, `preference`. Leaves `model/` and `history.jsonl`.
"""

from __future__ import annotations

import copy

import torch

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.jobs.context import Context
from qwen_core.jobs.training import model_of, run_training
from qwen_core.model import CausalLM
from qwen_core.train.dpo import DpoTask
from qwen_core.train.task import Alone


def run(context: Context) -> Outcome:
    """Align with preferences.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the held-out preference accuracy before and after.
    """
    base, data, section = context.inputs["sft"], context.inputs["preference"], context.section

    def make_task(model: CausalLM) -> DpoTask:
        frozen = copy.deepcopy(model)
        if section.precision == "bf16":  # as the policy sees its weights, so that both start out equal
            frozen = frozen.to(torch.bfloat16)
        return DpoTask(
            local_copy(data.path("train.arrow")),
            local_copy(data.path("validation.arrow")),
            reference=Alone(frozen),
            beta=section.beta,
            sft_weight=section.sft_weight,
            batch_size=section.micro_batch_size,
        )

    return run_training(context, lambda: model_of(base), make_task, base.path("model"))
