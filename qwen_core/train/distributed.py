"""The few collective operations that training needs, as plain functions; one process works too."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def rank() -> int:
    """Number of this worker, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Count of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share_object(value: Any) -> Any:
    """Give worker 0's value to all; every worker must call.

    Args:
        value: Anything that pickles; only worker 0's counts.

    Returns:
        Worker 0's.
    """
    held = [value]
    if world_size() > 1:
        dist.broadcast_object_list(held, src=0)
    return held[0]


def gather_objects(value: Any) -> list[Any]:
    """Give every worker's value to all; every worker must call.

    Args:
        value: Anything that pickles.

    Returns:
        The values by rank.
    """
    held = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(held, value)
    return held
