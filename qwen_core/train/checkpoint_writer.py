"""A checkpoint on its way to the disk, in a thread beside the training.

    each worker:  wait for the copies ─▶ write own files ─▶ handover-NNNNN.json (their sizes and checksums)
    worker 0:     wait for all handovers ─▶ manifest.json ─▶ delete older checkpoints

The threads of different workers meet in the files alone: collectives belong to the training, whose order they would
disturb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from qwen_core.errors import ArtifactError
from qwen_core.filesystem import reason_of
from qwen_core.parallel.snapshot import Taken
from qwen_core.train.checkpoint_folder import MANIFEST, CheckpointManifest, CheckpointRoot, FileSum
from qwen_core.train.distributed import rank, world_size

ENGINE, LOOP = "engine", "loop.json"
"""Folder of DeepSpeed's files in a checkpoint, and file of the loop's state."""
_HANDOVER_SECONDS = 1800.0


class Writing(threading.Thread):
    """One checkpoint on its way to the disk.

    Attributes:
        step: Optimiser steps done.
        folder: Its name below the root.
        written: Set when this worker's own files are there, or could not be written.
        is_given_up: Set from outside when another worker could not write: there is nothing to wait for.
        is_committed: Whether the manifest is there; on worker 0.
        fault: Why not; empty where all went well.
    """

    def __init__(
        self,
        root: CheckpointRoot,
        name: str,
        manifest: CheckpointManifest,
        taken: Taken,
        state: Mapping[str, Any],
        stack: contextlib.ExitStack,
        tidy: Callable[[int], None],
    ) -> None:
        """Take over what is to be written; `start` begins.

        Args:
            root: Where checkpoints lie.
            name: Of this one's folder.
            manifest: All but its files.
            taken: This worker's part.
            state: The loop's; worker 0 writes it.
            stack: Closed when the files are written.
            tidy: Called on worker 0 after the commit, with the step.
        """
        super().__init__(name="checkpoint", daemon=True)
        self._root, self._manifest, self._taken, self._state = root, manifest, taken, state
        self._stack, self._tidy = stack, tidy
        self._rank, self._workers = rank(), world_size()
        self.folder, self.step = name, manifest.step
        self.written, self.is_given_up = threading.Event(), threading.Event()
        self.is_committed, self.fault = False, ""

    def run(self) -> None:
        """Write; called by the thread."""
        with contextlib.suppress(OSError, AttributeError):  # training goes first where cores are scarce
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        started = time.monotonic()
        try:
            with self._stack:
                files = self._files()
            self._hand_over(files)
            self.written.set()
            if self._rank == 0:
                self._commit(started)
        except Exception as fault:  # of whatever kind: training must hear of it
            self.fault = f"worker {self._rank}: {reason_of(fault)}"
        finally:
            self.written.set()

    def _files(self) -> dict[str, FileSum]:
        """Write this worker's files."""
        self._taken.wait()
        sums = {}
        for file, state in self._taken.states.items():
            place = file if file.startswith("worker-") else f"{ENGINE}/{file}"
            sums[place] = self._root.write(self.folder, place, functools.partial(torch.save, state))
        for file, path in self._taken.files.items():
            with path.open("rb") as source:
                copy = functools.partial(shutil.copyfileobj, source)
                sums[f"{ENGINE}/{file}"] = self._root.write(self.folder, f"{ENGINE}/{file}", copy)
        if self._rank == 0:
            text = json.dumps(self._state).encode()
            sums[LOOP] = self._root.write(self.folder, LOOP, lambda out: out.write(text))
        return sums

    def _hand_over(self, files: Mapping[str, FileSum]) -> None:
        told = {file: [one.size, one.crc32] for file, one in files.items()}
        self._root.write_text(self.folder, _handover(self._rank), json.dumps(told))

    def _commit(self, started: float) -> None:
        """Wait until every worker has handed over, then write the manifest: now the folder is a checkpoint."""
        files, owners = {}, {}
        for worker, told in enumerate(self._handed_over()):
            for file, (size, crc32) in told.items():
                files[file], owners[file] = FileSum(size, crc32), worker
        manifest = dataclasses.replace(self._manifest, files=files, owners=owners)
        self._root.write_text(self.folder, MANIFEST, manifest.to_json())
        self.is_committed = True
        seconds = time.monotonic() - started
        print(f"checkpoint of step {self.step}: {manifest.size / 1e6:,.1f} MB in {seconds:.1f} s", flush=True)
        try:
            self._tidy(self.step)
        except OSError as fault:  # older ones that stay cost space, nothing else
            print(f"older checkpoints could not be deleted: {reason_of(fault)}", flush=True)

    def _handed_over(self) -> list[dict[str, Any]]:
        names, waited = [_handover(worker) for worker in range(self._workers)], 0.01
        limit = time.monotonic() + _HANDOVER_SECONDS
        while not all(self._root.exist(self.folder, names)):
            if self.is_given_up.is_set() or time.monotonic() > limit:
                raise ArtifactError(f"not all workers handed over their files within {_HANDOVER_SECONDS:.0f} s")
            time.sleep(waited)
            waited = min(1.0, waited * 1.5)
        return [json.loads(self._root.read(self.folder, name) or b"{}") for name in names]


def worker_file(number: int) -> str:
    """Name the file of what a worker keeps beside its shards."""
    return f"worker-{number:05d}.pt"


def _handover(number: int) -> str:
    return f"handover-{number:05d}.json"
