"""Three dimensions give the losses, norms and weights of one process."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parallel.runs import run_plans
from tests.parallel.spread import spread
from tests.parallel.tiny import assert_equal, tiny_config, train_alone

pytestmark = pytest.mark.slow


def compare(num_workers: int, plans: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Run plans over so many workers, and compare each with one process."""
    by_rank = spread(run_plans, num_workers, plans)
    for number, (changes, _) in enumerate(plans):
        assert_equal([outcomes[number] for outcomes in by_rank], train_alone(tiny_config(**changes)))


def test_two_workers_equal_one_process():
    pipe, tensor, data = {"pipeline": 2, "tensor": 1}, {"pipeline": 1, "tensor": 2}, {"pipeline": 1, "tensor": 1}
    tied = {"tie_word_embeddings": True}
    compare(
        2,
        [
            ({}, pipe),
            (tied, pipe | {"gradient_checkpointing": "full"}),
            ({}, tensor),
            (tied | {"model_type": "qwen2"}, tensor | {"sequence_parallel": True}),
            ({"num_key_value_heads": 1}, tensor),
            (tied, data),
        ],
    )


def test_eight_workers_in_three_dimensions_equal_one_process():
    cube = {"pipeline": 2, "tensor": 2}
    compare(
        8,
        [
            ({}, cube),
            ({"tie_word_embeddings": True, "num_key_value_heads": 1}, cube | {"sequence_parallel": True}),
        ],
    )
