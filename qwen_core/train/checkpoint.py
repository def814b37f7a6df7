"""Checkpoints of a training run: written beside the training, committed by a manifest, verified before they are used.

    save:    copy to the CPU ─▶ (thread) write own shards, hand over ─▶ (worker 0) all here? manifest, tidy up
    restore: the latest ─▶ of this run? ─▶ every file whole? ─▶ same plan: load │ another: cut anew, load
                                               └─ no: say so, take the one before

How the launcher and the loop use it, on every worker alike (it is the loop's `Keeper`):

    checkpoints = Checkpoints(f"{state_uri}/checkpoints", identity={...}, plan={...}, ..., report=report_to_ray)
    state = checkpoints.restore(engine)             # None: a new run; else what `save` got, random numbers set too
    for step in range(state["step"] if state else 0, max_steps):
        ...                                         # one optimiser step; `done = step + 1`
        if checkpoints.due(done, loss):             # validation loss of exactly these weights; None: not measured
            checkpoints.save(engine, done, state, loss)    # state: plain JSON, the same on every worker
    checkpoints.finish()                            # waits for the last one: before the workers end
    checkpoints.go_back(engine, step)               # to roll back; `steps()` lists what there is
    checkpoints.restore_best(engine)                #  for the final model, where `use_best_checkpoint` is set

The engine calls DeepSpeed's `save_checkpoint` and `load_checkpoint` with one fixed tag in `save(folder, state)` and
`load(folder)`, and shows DeepSpeed's engine as `deepspeed`: its checkpoint engine is exchanged for one that copies to
memory. The state that `engine.save` gets is empty: the loop's own is kept here, as JSON.

Ray Train is told of each checkpoint by a pointer. A run does not resume from Ray's own list of checkpoints: Ray 2.60
rewrites that list in place, so that a driver killed at that moment leaves half a file past which no later start gets,
and it refuses to start where a folder of the list is gone. Give each start a run name of its own.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import math
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_core import __version__
from qwen_core.errors import ArtifactError
from qwen_core.parallel.engine import Engine
from qwen_core.parallel.snapshot import taking
from qwen_core.parallel.universal import describe
from qwen_core.train.checkpoint_folder import CheckpointManifest, CheckpointRoot, Found, folder_name
from qwen_core.train.checkpoint_reader import check_identity, fault_of, load, say
from qwen_core.train.checkpoint_writer import Writing, worker_file
from qwen_core.train.distributed import gather_objects, rank, share_object, world_size
from qwen_core.train.random_state import random_state

Report = Callable[[int, str | None], None]
"""`(step, address on worker 0 or None)`: called on every worker after a checkpoint, in the main thread."""

_FAILED_SAVES = 3


class Checkpoints:
    """The checkpoints of one run, as one worker sees them."""

    def __init__(
        self,
        uri: str,
        *,
        identity: Mapping[str, Any],
        plan: Mapping[str, Any],
        every_steps: int,
        every_seconds: float = 0.0,
        keep_last: int = 2,
        keep_best: bool = False,
        is_asynchronous: bool = True,
        report: Report | None = None,
    ) -> None:
        """Name the place; every worker must call, nothing is written yet.

        Args:
            uri: Folder that all workers reach: local or shared path, or an object store's address.
            identity: What a checkpoint must share with this run, as plain JSON by name, such as `model` (its config),
                `data` and `tokenizer` (fingerprints).
            plan: How the model is spread, as plain JSON: sizes, ZeRO stage, precision. Another plan loads too.
            every_steps: Optimiser steps between two checkpoints.
            every_seconds: Seconds after which one is due before that; 0 is never.
            keep_last: Checkpoints to keep, 1 or more; with 1, a damaged one leaves nothing to fall back to.
            keep_best: Whether to take, and keep, one wherever the validation loss is the best so far.
            is_asynchronous: Whether training goes on while files are written.
            report: Told of each checkpoint.
        """
        self.root = CheckpointRoot(uri)
        self._identity, self._plan = json.loads(json.dumps(identity)), json.loads(json.dumps(plan))
        self._every_steps, self._every_seconds = every_steps, every_seconds
        self._keep_last, self._keep_best = max(1, keep_last), keep_best
        self._is_asynchronous, self._report = is_asynchronous, report
        self._token = share_object(uuid.uuid4().hex[:8])
        self._damaged: set[str] = set()
        self._best = math.inf
        self._writing: Writing | None = None
        self._saves, self._failures, self._last_time = 0, 0, time.monotonic()

    def due(self, step: int, validation_loss: float | None = None) -> bool:
        """Decide whether a checkpoint is taken now; every worker must call and gets the same answer.

        Args:
            step: Optimiser steps done.
            validation_loss: Of the weights as they are now; `None` where it was not measured.

        Returns:
            Whether to call `save`.
        """
        is_due = step % self._every_steps == 0
        if self._every_seconds:
            is_due |= bool(share_object(time.monotonic() - self._last_time >= self._every_seconds))
        return is_due or (self._keep_best and validation_loss is not None and validation_loss < self._best)

    def save(self, engine: Engine, step: int, state: Mapping[str, Any], validation_loss: float | None = None) -> None:
        """Take a checkpoint; every worker must call. Returns when the copies are made; waits for an earlier one first.

        Args:
            engine: The model and its optimiser.
            step: Optimiser steps done.
            state: The loop's own, plain JSON, the same on every worker.
            validation_loss: Of exactly these weights; `None` where it was not measured.

        Raises:
            ArtifactError: Three checkpoints in a row could not be written.
        """
        self._wait()
        self._saves += 1  # a run that was rolled back comes by a step again
        name = folder_name(step, f"{self._token}{self._saves:04d}")
        manifest = CheckpointManifest(
            step=step,
            token=self._token,
            identity=self._identity,
            plan=self._plan,
            workers=world_size(),
            code_version=__version__,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
            validation_loss=validation_loss,
        )
        stack = contextlib.ExitStack()
        taken = stack.enter_context(taking(engine))
        # the loop goes on adding to its lists
        state = {name: copy.copy(value) for name, value in state.items()} | {"step": step}
        taken.states[worker_file(rank())] = {"random": random_state(), **describe(engine)}
        self._writing = Writing(self.root, name, manifest, taken, state, stack, self._tidy)
        self._writing.start()
        if validation_loss is not None:
            self._best = min(self._best, validation_loss)
        self._last_time = time.monotonic()
        if not self._is_asynchronous:
            self._wait()

    def finish(self) -> None:
        """Wait for the last checkpoint; every worker must call."""
        self._wait()

    def restore(self, engine: Engine) -> dict[str, Any] | None:
        """Load the latest checkpoint that is whole; every worker must call.

        Args:
            engine: As it was built for this run.

        Returns:
            What `save` was given, with `step`; `None` where no checkpoint was ever completed.

        Raises:
            ArtifactError: The checkpoints are of another run, or all of them are damaged.
        """
        found = self._find()
        committed = [one for one in found if one.manifest or one.fault]
        unfinished = len(found) - len(committed)
        if unfinished:
            say(f"{unfinished} checkpoint(s) were never completed, because the run was killed: unused")
        for one in committed:
            fault = one.fault or self._fault_of(one)
            if not fault:
                self._best = _lowest(found)
                return self._load(engine, one)
            self._damaged.add(one.name)
            say(f"checkpoint {self.root.uri}/{one.name} is damaged: {fault}. The one before it is tried")
        if committed:
            raise ArtifactError(
                f"all {len(committed)} checkpoints below {self.root.uri} are damaged, the latest of step "
                f"{committed[0].step}. Restore one of these folders from a backup, or delete {self.root.uri} to train "
                "from step 0"
            )
        return None

    def steps(self) -> list[int]:
        """List the steps of complete checkpoints, in rising order; every worker must call, and gets the same."""
        self._wait()
        return sorted({one.step for one in self._find() if one.manifest})

    def go_back(self, engine: Engine, step: int) -> dict[str, Any]:
        """Go back to the checkpoint of a step, and delete those of later steps; every worker must call.

        Args:
            engine: The model and its optimiser; it may have trained since.
            step: One of `steps`.

        Returns:
            What `save` was given, with `step`.

        Raises:
            ArtifactError: There is none, or it is damaged.
        """
        self._wait()
        found, faults = self._find(), []
        for one in found:
            if one.manifest and one.step == step:
                fault = self._fault_of(one)
                if not fault:
                    state = self._load(engine, one)
                    self._forget([later for later in found if later.step > step])
                    self._best = _lowest([left for left in found if left.step <= step])  # the best one may be gone
                    return state
                faults.append(fault)
        raise ArtifactError(
            f"no checkpoint of step {step} below {self.root.uri} can be used: {faults or 'none is there'}"
        )

    def restore_best(self, engine: Engine) -> dict[str, Any] | None:
        """Load the checkpoint with the lowest validation loss; every worker must call.

        Args:
            engine: The model and its optimiser.

        Returns:
            What `save` was given; `None` where no whole checkpoint has a validation loss.
        """
        self._wait()
        measured = [one for one in self._find() if _loss_of(one) is not None]
        for one in sorted(measured, key=lambda one: _loss_of(one) or 0.0):
            if not self._fault_of(one):
                return self._load(engine, one)
        return None

    def _forget(self, later: Sequence[Found]) -> None:
        """Delete the checkpoints of the steps that will be taken anew: a killed run must not go on from them."""
        if rank() == 0:
            for one in later:
                self.root.delete(one.name)

    def _find(self) -> list[Found]:
        found: list[Found] = share_object(self.root.find() if rank() == 0 else None)
        return found

    def _fault_of(self, one: Found) -> str:
        check_identity(self.root, one, self._identity)
        return fault_of(self.root, one)

    def _load(self, engine: Engine, one: Found) -> dict[str, Any]:
        return load(self.root, one, engine, self._plan)

    def _wait(self) -> None:
        """Wait for the checkpoint in flight, tell of it, and count failures."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        writing.written.wait()
        fault = next(filter(None, gather_objects(writing.fault)), "")
        if fault:
            writing.is_given_up.set()
        writing.join()
        fault = fault or share_object(writing.fault)
        if self._report is not None:
            self._report(writing.step, f"{self.root.uri}/{writing.folder}" if writing.is_committed else None)
        self._failures = self._failures + 1 if fault else 0
        text = f"checkpoint of step {writing.step} could not be written ({fault})"
        if self._failures >= _FAILED_SAVES:
            raise ArtifactError(f"{text}, the {self._failures}. in a row: check space and rights of {self.root.uri}")
        if fault:
            self._best = math.inf  # what was not written may have been the best: the next one measured is taken
            say(f"{text}: training goes on, the one before it stays")

    def _tidy(self, step: int) -> None:
        """Delete what is no longer needed: older checkpoints, damaged ones, and what killed starts left."""
        found = self.root.find()
        good = [one for one in found if one.manifest and one.name not in self._damaged]
        latest = {one.step: one.name for one in reversed(good)}  # of one step, the one that was committed last
        keep = {latest[number] for number in sorted(latest)[-self._keep_last :]}
        measured = [one for one in good if _loss_of(one) is not None]
        if self._keep_best and measured:
            keep.add(min(measured, key=lambda one: (_loss_of(one), -one.step)).name)
        for one in found:
            is_in_flight = one.manifest is None and self._token in one.name and one.step >= step
            if one.name not in keep and not is_in_flight:
                self.root.delete(one.name)


def report_to_ray(step: int, uri: str | None) -> None:
    """Tell Ray Train of a checkpoint, by a small folder that points to it; every worker must call.

    Args:
        step: Optimiser steps done.
        uri: The checkpoint's folder, on worker 0; `None` elsewhere, or where it was not completed.
    """
    import ray.train

    if uri is None:
        ray.train.report({"step": float(step)})
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pointer.json").write_text(json.dumps({"step": step, "checkpoint": uri}), encoding="utf-8")
        ray.train.report({"step": float(step)}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _lowest(found: Sequence[Found]) -> float:
    """Tell the lowest validation loss of complete checkpoints; infinity where none has one."""
    return min([loss for loss in map(_loss_of, found) if loss is not None], default=math.inf)


def _loss_of(one: Found) -> float | None:
    loss = one.manifest.validation_loss if one.manifest else None
    return None if loss is None or math.isnan(loss) else loss
