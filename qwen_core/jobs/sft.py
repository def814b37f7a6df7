"""`sft`: pretrained model and rendered instructions ─▶ a model that answers.

Reads `pretrain`, `instruct`. Leaves `model/` and `history.jsonl`, and of adapters also `adapter/`, as PEFT reads them.
"""

from __future__ import annotations

from qwen_core.artifacts import Manifest, Outcome, local_copy
from qwen_core.config.align import Sft
from qwen_core.errors import RecipeError
from qwen_core.jobs.context import Context
from qwen_core.jobs.training import run_training, start_of
from qwen_core.model import CausalLM
from qwen_core.train.sft import SftTask


def run(context: Context) -> Outcome:
    """Fine-tune on instructions.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the held-out answer loss before and after.

    Raises:
        ArtifactError: The model's files are missing, cut off, or of another architecture.
        InputError: The instructions do not fit the model.
        RecipeError: A packed row is shorter than a conversation may be, or adapters cannot be trained so.
    """
    base, data, batch = context.inputs["pretrain"], context.inputs["instruct"], context.section.micro_batch_size
    start = start_of(base, data, "instruct")
    row = packed_row(context.section, data)

    def make_task(_: CausalLM) -> SftTask:
        return SftTask(local_copy(data.path("train.arrow")), local_copy(data.path("validation.arrow")), batch, row)

    # A run that was rendered before templates were laid beside the data has the base's tokenizer
    tokenizer = data.path("tokenizer") if "tokenizer/tokenizer.json" in data.files else base.path("model")
    return run_training(context, start, make_task, tokenizer)


def packed_row(section: Sft, data: Manifest) -> int | None:
    """Decide how many tokens a packed row has.

    Args:
        section: The recipe's.
        data: Of `instruct`.

    Returns:
        Tokens; `None` without packing.

    Raises:
        RecipeError: The longest conversation does not fit.
    """
    if not section.packing:
        if section.packed_seq_len is not None:
            raise RecipeError(
                f"sft.packed_seq_len ({section.packed_seq_len}) means nothing without sft.packing: set that, or drop it"
            )
        return None
    longest = data.details["max_tokens"]
    row = section.packed_seq_len or int(data.config["instruct"]["max_seq_len"])
    if longest > row:
        raise RecipeError(
            f"sft.packed_seq_len ({row}) is less than the longest conversation ({longest} tokens), and none is cut: "
            f"raise it, or lower instruct.max_seq_len"
        )
    return row
