"""`sft`: pretrained model and rendered instructions ─▶ a model that answers.

Reads `pretrain`, `instruct`. Leaves `model/` and `history.jsonl`.
"""

from __future__ import annotations

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.jobs.context import Context
from qwen_core.jobs.training import model_of, run_training
from qwen_core.model import CausalLM
from qwen_core.train.sft import SftTask


def run(context: Context) -> Outcome:
    """Fine-tune on instructions.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the held-out answer loss before and after.
    """
    base, data, batch = context.inputs["pretrain"], context.inputs["instruct"], context.section.micro_batch_size

    def make_task(_: CausalLM) -> SftTask:
        return SftTask(local_copy(data.path("train.arrow")), local_copy(data.path("validation.arrow")), batch)

    return run_training(context, lambda: model_of(base), make_task, base.path("model"))
