"""What the reference model thinks of each preference pair: computed once, by Ray Data, before the training starts.

    pairs (Arrow) ─▶ map_batches(Judge, one model an actor) ─▶ + reference_chosen, reference_rejected ─▶ state/reference

The result lies with the stage's state, whose folder's name covers model and data: a stage that was killed finds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import torch

from qwen_core.artifacts import Manifest, local_copy
from qwen_core.jobs.context import Context
from qwen_core.jobs.corpus import write_arrow
from qwen_core.model import load_pretrained
from qwen_core.train.dpo import SIDES, pair_logprobs
from qwen_core.train.sft import read_table
from qwen_core.train.task import Alone

_SPLITS = ("train", "validation")
_ROW = "_row"


class Judge:
    """A frozen model that judges batches of pairs."""

    def __init__(self, folder: str, dtype: torch.dtype, threads: int, is_on_gpu: bool) -> None:
        """Load the model.

        Args:
            folder: Hugging Face folder, local or in an object store.
            dtype: As the policy sees its weights, so that both start out equal.
            threads: torch's threads in this actor.
            is_on_gpu: Whether it computes there.
        """
        torch.set_num_threads(threads)
        self._model = Alone(load_pretrained(local_copy(folder), dtype).eval(), "cuda" if is_on_gpu else "cpu")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add `reference_chosen` and `reference_rejected`, in nats, summed over the reply.

        Args:
            batch: Pairs.

        Returns:
            The row numbers with the two columns.
        """
        logprobs, _ = pair_logprobs(self._model, batch, batch.num_rows)
        figures = {f"reference_{side}": logprobs[:, number].numpy() for number, side in enumerate(SIDES)}
        return pa.table({_ROW: batch[_ROW], **figures})


def judged_pairs(context: Context, model: Manifest, data: Manifest) -> dict[str, str]:
    """Let the reference model judge all pairs, unless an earlier attempt at this stage did.

    Args:
        context: The stage's.
        model: Of the stage that made the reference.
        data: Of `preference`.

    Returns:
        Arrow files in the store by split: the pairs with `reference_chosen` and `reference_rejected`.
    """
    home = f"{context.attempt.state_uri}/reference"
    if context.store.read(f"{home}/done") is None:
        tables = {split: read_table(local_copy(data.path(f"{split}.arrow"))) for split in _SPLITS}
        # One pass over all: actors that load torch and a model take longer to start than a small split takes
        judged, start = _judge(context, model.path("model"), pa.concat_tables(tables.values())), 0
        for split, table in tables.items():
            write_arrow(judged.slice(start, table.num_rows), f"{home}/{split}.arrow")
            start += table.num_rows
        context.store.write(f"{home}/done", "")  # what lacks it was left by a killed attempt
    return {split: f"{home}/{split}.arrow" for split in _SPLITS}


def _judge(context: Context, folder: str, table: pa.Table) -> pa.Table:
    """Spread the pairs over actors and put the answers back into order."""
    section, parallel = context.section, context.recipe.parallel
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(section.precision, torch.float32)
    numbered = table.append_column(_ROW, pa.array(range(table.num_rows), pa.int64()))
    # pairs of like length meet in a batch: less padding
    sizes = [pc.list_value_length(table[f"{name}_ids"]) for name in ("prompt", *SIDES)]
    order = pc.sort_indices(pc.add(pc.add(sizes[0], sizes[1]), sizes[2]))
    resources: dict[str, Any] = {"num_gpus": 1} if parallel.use_gpu else {"num_cpus": parallel.cpus_per_worker}
    actors = max(1, min(parallel.num_workers, -(-table.num_rows // section.micro_batch_size)))
    ordered, share = numbered.take(order), -(-table.num_rows // actors)
    # Cut here: tasks that cut in the cluster would wait for ever for a CPU where the actors hold them all
    parts = [ordered.slice(start, share) for start in range(0, table.num_rows, share)]
    judged = ray.data.from_arrow(parts).map_batches(
        Judge,
        fn_constructor_args=(folder, dtype, parallel.threads_per_worker, parallel.use_gpu),
        batch_size=section.micro_batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        **resources,
    )
    answered: Iterable[Any] = judged.iter_batches(batch_size=None, batch_format="pyarrow")  # tables
    pieces, done = [], 0
    for piece in answered:
        pieces.append(piece)
        done += piece.num_rows
        context.progress(done, table.num_rows, "judged_pairs")
    answers = pa.concat_tables(pieces).sort_by(_ROW)
    for side in SIDES:
        name = f"reference_{side}"
        table = table.append_column(name, answers[name])
    return table
