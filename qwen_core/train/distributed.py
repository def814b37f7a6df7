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
