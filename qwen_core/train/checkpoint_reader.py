"""Checkpoints read back: verified file by file, held against the run, loaded under the same plan or cut anew."""

from __future__ import annotations

import json
import pickle
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_core.errors import ArtifactError
from qwen_core.parallel.engine import Engine
from qwen_core.parallel.slots import refresh
from qwen_core.parallel.snapshot import load_harmless, with_snapshot
from qwen_core.parallel.universal import cut_anew
from qwen_core.train.checkpoint_folder import CheckpointManifest, CheckpointRoot, Found
from qwen_core.train.checkpoint_writer import ENGINE, LOOP, worker_file
from qwen_core.train.distributed import gather_objects, rank, world_size
from qwen_core.train.random_state import restore_random_state


def fault_of(root: CheckpointRoot, one: Found) -> str:
    """Verify a checkpoint's files, each worker its share of them; every worker must call.

    Args:
        root: Where it lies.
        one: With its manifest.

    Returns:
        What is wrong, the same on every worker; empty where all files are whole.

    Raises:
        OSError: The disk or the network failed in a way that may pass.
    """
    assert one.manifest is not None
    faults: list[Any] = []
    try:
        for file in sorted(one.manifest.files)[rank() :: world_size()]:
            faults.append(root.fault_of(one.name, file, one.manifest.files[file]))
    except OSError as error:  # of the disk or the network: no worker may go on alone
        faults.append(error)
    every = [fault for told in gather_objects(faults) for fault in told if fault]
    for fault in every:
        if isinstance(fault, OSError):
            raise fault
    return "; ".join(every[:3])


def check_identity(root: CheckpointRoot, one: Found, identity: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another run.

    Args:
        root: Where it lies.
        one: With its manifest.
        identity: What it must share with this run.

    Raises:
        ArtifactError: It does not; every difference is told.
    """
    assert one.manifest is not None
    lines = []
    for name, wanted in identity.items():
        lines += _differences(name, one.manifest.identity.get(name), wanted)
    if lines:
        raise ArtifactError(
            f"checkpoint {root.uri}/{one.name} is of another run; a run goes on only from its own model, data "
            "and tokenizer:\n  " + "\n  ".join(lines) + "\nGo back to the recipe that made it, or delete "
            f"{root.uri} to train from step 0; to start from its weights, import its model folder instead"
        )


def load(root: CheckpointRoot, one: Found, engine: Engine, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Load a checkpoint that was verified; every worker must call.

    Args:
        root: Where it lies.
        one: With its manifest.
        engine: As it was built for this run.
        plan: How this run spreads the model; where the checkpoint's differs, its shards are cut anew.

    Returns:
        The loop's state.

    Raises:
        ArtifactError: A file holds what no checkpoint of this package holds, or a parameter is missing.
    """
    assert one.manifest is not None
    started = time.monotonic()
    is_same = one.manifest.plan == plan and one.manifest.workers == world_size()
    with tempfile.TemporaryDirectory(prefix="qwen-core-checkpoint-") as target:
        files = _needed(one.manifest) if is_same else list(one.manifest.files)
        folder = root.bring(one.name, files, Path(target))
        if not is_same:
            was, now = _plan_text(one.manifest.plan, one.manifest.workers), _plan_text(plan, world_size())
            say(f"checkpoint of step {one.step} was taken with {was}: cut anew for {now}")
        try:
            _load_engine(engine, folder, one.manifest, is_same)
            own = worker_file(rank())
            if own in one.manifest.files:  # more workers than before draw on as they began
                restore_random_state(load_harmless(str(folder / own))["random"])
        except pickle.UnpicklingError as fault:
            raise ArtifactError(
                f"checkpoint {root.uri}/{one.name} holds more than tensors and plain values, so it was not written by "
                f"this program; nothing in it was run. Delete it. ({fault})"
            ) from fault
        state: dict[str, Any] = json.loads((folder / LOOP).read_text(encoding="utf-8"))
    megabytes, seconds = one.manifest.size / 1e6, time.monotonic() - started
    say(f"resumed at step {one.step} from {root.uri}/{one.name} ({megabytes:,.1f} MB in {seconds:.1f} s)")
    return state


def _load_engine(engine: Engine, folder: Path, manifest: CheckpointManifest, is_same: bool) -> None:
    inner = with_snapshot(engine)
    if not is_same:
        cut_anew(engine, folder / ENGINE, *_shards(folder, manifest))
        return
    engine.load(str(folder / ENGINE))
    if inner.zero_optimization_stage() < 3:
        refresh(inner)


def say(text: str) -> None:
    """Print a line, once for all workers."""
    if rank() == 0:
        print(text, flush=True)


def _needed(manifest: CheckpointManifest) -> list[str]:
    """Leave out other workers' shards of ZeRO, which are most of a checkpoint's bytes."""
    mine = rank()
    shared = [file for file in manifest.files if not ("zero_pp_rank" in file or file.startswith("worker-"))]
    return shared + [file for file, owner in manifest.owners.items() if owner == mine and file not in shared]


def _shards(folder: Path, manifest: CheckpointManifest) -> tuple[dict[int, list[str]], dict[int, Any]]:
    """Tell which worker wrote which shards, and what it told of them."""
    files: dict[int, list[str]] = {number: [] for number in range(manifest.workers)}
    for file, owner in manifest.owners.items():
        if file.startswith(f"{ENGINE}/"):
            files[owner].append(file.removeprefix(f"{ENGINE}/"))
    return files, {number: load_harmless(str(folder / worker_file(number))) for number in files}


def _plan_text(plan: Mapping[str, Any], workers: int) -> str:
    return ", ".join([f"{workers} worker(s)", *(f"{name}={value}" for name, value in sorted(plan.items()))])


def _differences(name: str, theirs: Any, ours: Any) -> list[str]:
    """Say where two values differ, field by field where they are mappings."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = sorted(theirs.keys() | ours.keys())
        return [line for key in keys for line in _differences(f"{name}.{key}", theirs.get(key), ours.get(key))]
    return [] if theirs == ours else [f"{name}: the checkpoint has {theirs!r}, this run {ours!r}"]
