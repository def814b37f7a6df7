"""What the tests of tasks share: Arrow files, and a model whose losses are known."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import torch

from qwen_core.model import IGNORE
from qwen_core.parallel.engine import Batch
from qwen_core.parallel.shard import ALONE


def write(path: Path, table: pa.Table, chunk: int | None = None) -> str:
    """Write a table as an Arrow file, in batches of at most `chunk` rows; return its path."""
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return str(path)


class OwnId:
    """A model that gives each counted token a loss of its own id, in nats."""

    shard = ALONE

    def measure(self, batch: Batch) -> torch.Tensor:
        """Give the losses."""
        return torch.where(batch.labels == IGNORE, 0, batch.labels).float()
