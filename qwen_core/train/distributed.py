"""The few collective operations that training needs, as plain functions; one process works too."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """Number of this worker, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Count of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_sum(tensor: Tensor) -> Tensor:
    """Add a tensor up over all workers.

    Args:
        tensor: Of the same shape everywhere; changed in place.

    Returns:
        The same tensor.
    """
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def shard_batches(count: int, batch_size: int) -> list[tuple[list[int], list[float]]]:
    """Deal items out to this worker, in as many batches as every other worker gets.

    Under ZeRO-3 each forward pass is a collective operation: a worker with one batch less would hang the others.
    Items that only fill up a batch get the weight 0.

    Args:
        count: Items in all.
        batch_size: Items in one batch.

    Returns:
        Batches of (indices, weights).
    """
    workers = world_size()
    rounds = -(-count // (batch_size * workers))
    batches = []
    for number in range(rounds):
        first = (number * workers + rank()) * batch_size
        wanted = range(first, first + batch_size)
        batches.append(([index % count for index in wanted], [1.0 if index < count else 0.0 for index in wanted]))
    return batches
