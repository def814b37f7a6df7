"""Packed token sequences: Arrow files of fixed length, memory-mapped, read by index in a global order.

train/part-00000.arrow ...   input_ids fixed_size_list<uint32>[S], document_starts list<uint32>,
                             num_bytes uint32, num_tokens uint32, language string, source string
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.errors import ArtifactError

Ints = npt.NDArray[np.int64]


def packed_schema(max_seq_len: int) -> pa.Schema:
    """Describe the table of packed sequences.

    Args:
        max_seq_len: Tokens in a sequence.

    Returns:
        The schema: `document_starts` always begins with 0; `num_tokens` counts without padding; `num_bytes` are the
        UTF-8 bytes of the tokens that are predicted, so of all but each document's first.
    """
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.uint32(), max_seq_len)),
            ("document_starts", pa.list_(pa.uint32())),
            ("num_bytes", pa.uint32()),
            ("num_tokens", pa.uint32()),
            ("language", pa.string()),
            ("source", pa.string()),
        ]
    )


@dataclass(frozen=True)
class PackedBatch:
    """Some sequences: ids [n, S], document number of each token [n, S], tokens without padding [n]."""

    input_ids: Ints
    segment_ids: Ints
    num_tokens: Ints


class PackedSequences:
    """The sequences of one split, in the order of their files."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Map the files.

        Args:
            paths: Local Arrow IPC files, in order.

        Raises:
            ArtifactError: There are none.
        """
        if not paths:
            raise ArtifactError("no packed sequences: the 'pack' artifact has no file for this split")
        self.table = pa.concat_tables(pa.ipc.open_file(pa.memory_map(path)).read_all() for path in paths)

    @classmethod
    def of(cls, table: pa.Table) -> PackedSequences:
        """Take sequences that lie in memory.

        Args:
            table: Rows of `packed_schema`.

        Returns:
            The sequences.
        """
        sequences = cls.__new__(cls)
        sequences.table = table
        return sequences

    def __len__(self) -> int:
        """Count the sequences."""
        return int(self.table.num_rows)

    def batch(self, indices: Sequence[int] | Ints) -> PackedBatch:
        """Read sequences.

        Args:
            indices: Which ones, in order; repeats are allowed.

        Returns:
            Their tokens.
        """
        rows = self.table.take(pa.array(np.asarray(indices, dtype=np.int64)))
        ids = rows["input_ids"].combine_chunks()
        size = ids.type.list_size
        input_ids = ids.flatten().to_numpy().astype(np.int64).reshape(-1, size)
        starts = rows["document_starts"].combine_chunks()
        sequence = np.repeat(np.arange(len(rows)), pc.list_value_length(starts).to_numpy())
        marks = np.zeros(input_ids.shape, dtype=np.int64)
        marks[sequence, starts.flatten().to_numpy()] = 1
        return PackedBatch(input_ids, marks.cumsum(1) - 1, rows["num_tokens"].to_numpy().astype(np.int64))


@lru_cache(maxsize=4)  # a step asks for one or two epochs, the same ones as the step before it
def epoch_order(seed: int, epoch: int, count: int) -> Ints:
    """Shuffle the sequences of an epoch, as a function of the arguments alone.

    Args:
        seed: The recipe's.
        epoch: From 0.
        count: Sequences in an epoch.

    Returns:
        A permutation of `range(count)`; not to be written to.
    """
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def step_indices(seed: int, step: int, batch_size: int, count: int) -> Ints:
    """Say which sequences make up an optimiser step, over the bounds of epochs.

    Args:
        seed: The recipe's.
        step: From 0.
        batch_size: Sequences in a step, over all workers.
        count: Sequences in an epoch.

    Returns:
        `batch_size` indices: the same whatever the number of workers, and after a resume.
    """
    return indices_from(seed, step * batch_size, batch_size, count)


def indices_from(seed: int, first: int, batch_size: int, count: int) -> Ints:
    """Say which sequences follow in the global order, over the bounds of epochs.

    Args:
        seed: The recipe's.
        first: How many came before, from 0: a function of the step alone.
        batch_size: How many to take.
        count: Sequences in an epoch.

    Returns:
        `batch_size` indices.
    """
    epochs = range(first // count, (first + batch_size - 1) // count + 1)
    order = np.concatenate([epoch_order(seed, epoch, count) for epoch in epochs])
    start = first - epochs[0] * count
    return order[start : start + batch_size]
