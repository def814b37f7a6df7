"""DeepSpeed's checkpoints taken in memory: its engine says what belongs into which file, we write the files later.

    engine.save_checkpoint ──▶ Snapshot.save(state, path) ──▶ copies on the CPU ──▶ {path: state} for a writing thread

DeepSpeed 0.19.8 has asynchronous engines of its own, which do not do the whole job. `DecoupledCheckpointEngine` writes
from a second process, but training waits for it at the next gradient boundary; `DataStates` is a package apart. Both
write local files without checksums and call a checkpoint complete by a file `latest`.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor

HARMLESS = [ZeroStageEnum, LossScaler, DynamicLossScaler, fragment_address]
"""Types in DeepSpeed's files beside tensors and plain values: plain holders of numbers, no code runs when they load."""


class Copies:
    """Memory for copies of tensors, used again by each checkpoint: fresh pages cost more than the copying.

    One checkpoint at a time may hold it.
    """

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._next = 0

    def begin(self) -> None:
        """Start a checkpoint: what the one before it copied may be overwritten."""
        self._next = 0

    def of(self, value: Any) -> Any:
        """Copy all tensors inside nested mappings and lists to the CPU, and leave the rest as it is.

        A member of an enumeration becomes its value, to which it is equal: before Python 3.11.4 its pickle calls
        `getattr`, and no loader that runs no code takes that.
        """
        if isinstance(value, Tensor):
            return self._tensor(value.detach())
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, dict):
            copied = copy.copy(value)  # whatever kind of mapping it is
            copied.update((key, self.of(item)) for key, item in value.items())
            return copied
        if type(value) in (list, tuple):
            return type(value)(self.of(item) for item in value)
        return copy.copy(value) if type(value) in HARMLESS else value  # a loss scaler goes on counting

    def _tensor(self, tensor: Tensor) -> Tensor:
        if self._next == len(self._tensors):
            self._tensors.append(torch.empty(0))
        place = self._tensors[self._next]
        if place.shape != tensor.shape or place.dtype != tensor.dtype:
            # pinned memory lets a GPU copy while it goes on computing
            place = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._tensors[self._next] = place
        self._next += 1
        return place.copy_(tensor, non_blocking=True)


@dataclass
class Taken:
    """What a worker has to write: states by file name, and files that DeepSpeed wrote itself (those of NVMe offload).

    Attributes:
        states: For `torch.save`.
        files: Local paths by file name.
        event: On a GPU, when the copies are complete.
    """

    states: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    event: Any = None

    def wait(self) -> None:
        """Wait until the copies are complete; the computation need not."""
        if self.event is not None:
            self.event.synchronize()


class Snapshot(CheckpointEngine):  # type: ignore[misc]
    """A checkpoint engine for DeepSpeed that keeps what it should write, and reads without unpickling code."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "Snapshot"
        self._copies = Copies()
        self._folder = ""
        self._taken = Taken()

    @contextlib.contextmanager
    def into(self, folder: str) -> Iterator[Taken]:
        """Collect what is saved below a folder inside this context.

        Args:
            folder: Where the engine believes that it saves; names are told below it.

        Yields:
            What was taken; complete when the context ends.
        """
        self._copies.begin()
        self._folder, self._taken = folder, Taken()
        yield self._taken
        self._taken.files = {
            str(path.relative_to(folder)): path
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.suffix != ".py"  # DeepSpeed lays scripts for conversion beside its files
        }
        if torch.cuda.is_available():
            self._taken.event = torch.cuda.Event()
            self._taken.event.record()

    def create(self, info: Any) -> None:
        """Nothing to prepare."""

    def save(self, state_dict: Any, path: str) -> None:
        """Copy a file's content to the CPU."""
        self._taken.states[str(Path(path).relative_to(self._folder))] = self._copies.of(state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read a file; types that could run code are refused."""
        return load_harmless(path, map_location)

    def commit(self, info: Any) -> bool:
        """Nothing to commit here: the manifest does."""
        return True

    def preserves_storage_sharing(self) -> bool:
        """Views are copied alone, without the storage that they are cut from."""
        return False


def load_harmless(source: Any, map_location: Any = "cpu", *, is_mapped: bool = False) -> Any:
    """Read a file of `torch.save` that holds tensors, plain values and the few types of `HARMLESS`.

    Args:
        source: Path or file.
        map_location: As `torch.load` takes it.
        is_mapped: Leave tensors on the disk until they are used.

    Returns:
        Its content.

    Raises:
        pickle.UnpicklingError: It holds anything else.
    """
    with torch.serialization.safe_globals(HARMLESS):
        return torch.load(source, map_location=map_location, weights_only=True, mmap=is_mapped)


@contextlib.contextmanager
def taking(engine: Any) -> Iterator[Taken]:
    """Let an engine save into memory; every worker must call.

    Args:
        engine: With `save(folder, state)`, and with its DeepSpeed engine as `deepspeed`.

    Yields:
        What this worker has to write. Its `files` go when the context ends; its states are overwritten by the next.
    """
    snapshot: Snapshot = with_snapshot(engine).checkpoint_engine
    with tempfile.TemporaryDirectory(prefix="qwen-core-checkpoint-") as folder:
        with snapshot.into(folder) as taken:
            engine.save(folder, {})
        yield taken


def with_snapshot(engine: Any) -> Any:
    """Give an engine's DeepSpeed engine this checkpoint engine, once, for saving and for loading.

    Args:
        engine: With its DeepSpeed engine as `deepspeed`.

    Returns:
        The DeepSpeed engine.
    """
    inner = engine.deepspeed
    if not isinstance(inner.checkpoint_engine, Snapshot):
        inner.checkpoint_engine = Snapshot()
    return inner
