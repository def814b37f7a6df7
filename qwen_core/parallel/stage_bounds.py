"""Where a model is cut into the stages of a pipeline: so that the slowest stage is as fast as it can be."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_core.model import ModelConfig


def stage_bounds(config: ModelConfig, pipeline: int) -> list[int]:
    """Cut the model into stages of about equal work: the largest is as small as it can be.

    Args:
        config: Of the whole model.
        pipeline: Stages, at most as many as layers.

    Returns:
        Where each stage begins in the list of embedding, layers, norm and head; and the list's length.
    """
    return balanced(stage_costs(config), pipeline)


def stage_costs(config: ModelConfig) -> list[int]:
    """Estimate the work of embedding, each layer, norm and head, in numbers that a token is multiplied by.

    DeepSpeed's own `parameters` method counts all numbers, also those of the embedding, which only looks up, and of
    experts that a token does not meet; and it builds every layer on every worker to count them.

    Args:
        config: Of the whole model.

    Returns:
        One cost for each place in the pipeline.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads + config.num_key_value_heads
    attention = 2 * hidden * heads * config.head_dim
    dense = attention + 3 * hidden * config.intermediate_size
    width = config.num_experts_per_tok * config.moe_intermediate_size + config.shared_expert_intermediate_size
    sparse = attention + hidden * (config.num_experts + 3 * width)
    layers = [sparse if config.is_sparse(layer) else dense for layer in range(config.num_hidden_layers)]
    return [0, *layers, 0, hidden * config.vocab_size]


def balanced(costs: Sequence[int], parts: int) -> list[int]:
    """Cut a list into runs, none of them empty, whose largest sum is the smallest possible.

    Args:
        costs: At least as many as parts.
        parts: Runs.

    Returns:
        Where each run begins, and the list's length.
    """
    sums = [0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    # best[end]: the largest sum and the bounds of the first `end` items in so many runs
    best = {end: (sums[end], [0, end]) for end in range(1, len(costs) + 1)}
    for run in range(2, parts + 1):
        best = {
            end: min(
                (max(best[begin][0], sums[end] - sums[begin]), [*best[begin][1], end]) for begin in range(run - 1, end)
            )
            for end in range(run, len(costs) + 1)
        }
    return best[len(costs)][1]
