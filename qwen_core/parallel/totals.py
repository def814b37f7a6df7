"""A step's sums: over this worker's micro-batches first, then over all shares of the batch.

Losses and figures are divided by the count of the whole batch, so that accumulation and spreading change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.parallel.shard import Shard


class Totals:
    """Adds up a step's objectives.

    Attributes:
        count: What the whole batch's loss is divided by.
        tokens: That go through the model, over all shares.
    """

    def __init__(self, batches: Sequence[Batch], shard: Shard, device: torch.device) -> None:
        """Count the whole batch; a worker of every share must call.

        Args:
            batches: This share's micro-batches.
            shard: Sums over the shares.
            device: The engine's.

        Raises:
            ArtifactError: No label of the whole batch counts, so there is nothing to divide by; on every worker alike.
        """
        own = [sum(batch.count for batch in batches), float(sum(batch.tokens for batch in batches))]
        self.count, tokens = shard.sum(torch.tensor(own, dtype=torch.float64, device=device)).tolist()
        self.tokens = int(tokens)
        if self.count <= 0:
            raise ArtifactError(
                f"a step's {self.tokens:,} tokens hold no label that counts (count {self.count:g}), so its loss has "
                "nothing to be divided by; look whether replies were cut off, or take a larger global_batch_size"
            )
        self._shard, self._device = shard, device
        self._sums: dict[str, Tensor] = {}

    def add(self, objective: Objective) -> None:
        """Add a micro-batch's loss and figures."""
        for name, value in {"loss": objective.loss, **objective.figures}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().to(self._device, torch.float64)

    def means(self) -> dict[str, float]:
        """Sum over the shares and divide; a worker of every share must call.

        Returns:
            `loss` and the figures of the whole batch.
        """
        names = sorted(self._sums)
        sums = self._shard.sum(torch.stack([self._sums[name] for name in names]))
        return dict(zip(names, (sums / self.count).tolist(), strict=True))
