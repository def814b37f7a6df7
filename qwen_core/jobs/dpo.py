"""`dpo`: fine-tuned model and preference pairs ─▶ an aligned model.

    sft/model ─▶ judge all pairs once (Ray Data) ─▶ train against what it thought ─▶ model/, history.jsonl

Reads `sft`, `preference`.
"""

from __future__ import annotations

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.reference import judged_pairs
from qwen_core.jobs.training import run_training, start_of
from qwen_core.model import CausalLM
from qwen_core.train.dpo import DpoTask


def run(context: Context) -> Outcome:
    """Align with preferences.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the held-out preference accuracy before and after.
    """
    base, data, section = context.inputs["sft"], context.inputs["preference"], context.section
    start = start_of(base, data, "preference")
    connect_ray()
    pairs = judged_pairs(context, base, data)

    def make_task(model: CausalLM) -> DpoTask:
        model.lm_head.has_row_weights = True  # each pair weighs its tokens by its own margin
        return DpoTask(
            local_copy(pairs["train"]),
            local_copy(pairs["validation"]),
            kind=section.loss,
            beta=section.beta,
            label_smoothing=section.label_smoothing,
            sft_weight=section.sft_weight,
            batch_size=section.micro_batch_size,
            has_router=model.config.num_experts > 0,
        )

    return run_training(context, start, make_task, base.path("model"))
