"""One worker's share of a batch: which items are its own, and sums over all shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """A share among workers that see different data; workers that split one model see the same share.

    Attributes:
        rank: From 0.
        size: Number of shares.
        group: torch's process group of one worker from each share; `None` is the world, or this process alone.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    def sum(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all shares, in place; every worker must call.

        Args:
            tensor: Of the same shape everywhere, on the CPU or on the engine's device.

        Returns:
            The same tensor.
        """
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def batches(self, count: int, batch_size: int) -> list[tuple[list[int], list[float]]]:
        """Deal items out to this share, in as many batches as every other share gets.

        Each pass of a spread model is a collective operation: a worker with one batch less would hang the others.
        Items that only fill up a batch get the weight 0.

        Args:
            count: Items in all.
            batch_size: Items in one batch.

        Returns:
            Batches of (indices, weights).
        """
        rounds = -(-count // (batch_size * self.size))
        batches = []
        for number in range(rounds):
            first = (number * self.size + self.rank) * batch_size
            wanted = range(first, first + batch_size)
            batches.append(([index % count for index in wanted], [1.0 if index < count else 0.0 for index in wanted]))
        return batches


ALONE = Shard()
"""All of a batch, in this process."""
