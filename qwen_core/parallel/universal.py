"""A checkpoint of one parallel plan, loaded under another: other workers, another ZeRO stage, other splits.

    shards of all old workers ─▶ pieces by Hugging Face name ─▶ whole tensor (one at a time) ─▶ share that lies here

Weights in fp32 and the optimiser's moments are put together as in DeepSpeed's universal checkpoint, from the same
fields of its files, but nothing is written in between: each worker maps the old files and takes what it needs.
DeepSpeed 0.19.8's own converter and loader do not serve here. They know parameters by the names of the engine, which
differ between ZeRO and a pipeline; the loader of stage 3 gives each parameter group the options of the first, so that
norms begin to decay; a pipeline's checkpoint is refused unless the model describes itself in Megatron's way; and files
are unpickled without restriction.

Frozen weights are not in the optimiser: they stay as the model was built with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.parallel.expert import group_of, is_shared_out
from qwen_core.parallel.layout import Rule, rule_of, to_hugging_face_name
from qwen_core.parallel.slots import FP32, fill, refresh, slots, slots_without_zero
from qwen_core.parallel.snapshot import load_harmless


class Place(NamedTuple):
    """What a worker has of a parameter; lies in checkpoints as a plain list.

    Attributes:
        name: Hugging Face's.
        dimension: Which is split between workers of a tensor group, or of a group that shares out experts.
        parts: Stacked matrices along it.
        shape: Of this worker's share.
        rank: The worker's place in that group.
        size: Workers of that group.
        partition: Under ZeRO-3, which of the equal runs of the share the worker has.
        partitions: Under ZeRO-3, how many there are.
    """

    name: str
    dimension: int | None
    parts: int
    shape: tuple[int, ...]
    rank: int
    size: int
    partition: int
    partitions: int


@dataclass(frozen=True)
class Piece:
    """A run of numbers of a worker's share of a parameter.

    Attributes:
        start: First number, counted in the flattened share.
        size: How many.
        flats: Flat tensors by kind: `fp32`, and the optimiser's states.
        offset: Where the run begins in each of them.
        steps: Optimiser steps that the parameter took; `None` where it never got a gradient.
    """

    start: int
    size: int
    flats: Mapping[str, Tensor]
    offset: int
    steps: Tensor | None


@dataclass
class _Parameter:
    rule: Rule
    shape: tuple[int, ...]
    shares: dict[int, list[Piece]] = field(default_factory=dict)


def describe(engine: Any) -> dict[str, Any]:
    """Tell what a reader under another plan must know of this worker's shards; it goes into the checkpoint.

    Args:
        engine: A `ZeroEngine` or `PipeEngine`.

    Returns:
        Plain values: the places of its parameters by the engine's names, and the order of an optimiser without ZeRO.
    """
    inner = engine.deepspeed
    return {
        "places": {name: list(place) for name, place in _places(engine).items()},
        "order": [] if inner.zero_optimization() else [name for name, _ in slots_without_zero(inner)],
    }


def cut_anew(engine: Any, folder: Path, files: Mapping[int, Sequence[str]], told: Mapping[int, Any]) -> None:
    """Load a checkpoint that was taken under another plan; every worker must call.

    Args:
        engine: As it was built for the present plan, before its first step.
        folder: Local folder of the old shards.
        files: Paths below it by the worker that wrote them.
        told: What `describe` told, by worker.

    Raises:
        ArtifactError: A parameter of this model is not in the checkpoint, or has another shape.
    """
    whole = Whole(folder, files, told)
    inner = engine.deepspeed
    if hasattr(inner.optimizer, "checkpoint_event_prologue"):
        inner.optimizer.checkpoint_event_prologue()  # stage 3: small parameters are cut up too
    places = _places(engine)
    for name, slot in slots(inner):
        place = places[name]
        rule = Rule(place.dimension, place.parts)
        for kind in whole.kinds(place.name):
            share = rule.take(whole.tensor(place.name, kind), place.rank, place.size).reshape(-1)
            fill(inner.optimizer, slot, kind, share, whole.steps(place.name))
    refresh(inner)
    if hasattr(inner.optimizer, "checkpoint_event_epilogue"):
        inner.optimizer.checkpoint_event_epilogue()
    whole.restore_counters(inner)


class Whole:
    """Whole tensors out of the shards of all workers."""

    def __init__(self, folder: Path, files: Mapping[int, Sequence[str]], told: Mapping[int, Any]) -> None:
        """Map the files and index their pieces.

        Args:
            folder: Local folder of the shards.
            files: Paths below it by the worker that wrote them.
            told: What `describe` told, by worker.
        """
        self._parameters: dict[str, _Parameter] = {}
        self._states: list[Mapping[str, Any]] = []
        model = next(path for paths in files.values() for path in paths if _is_model(path))
        first = load_harmless(str(folder / model), is_mapped=True)
        self._counters = first
        for worker, paths in sorted(files.items()):
            optim = [path for path in paths if path.endswith("optim_states.pt")]
            own = [path for path in paths if _is_model(path)]
            if optim:
                model_states = load_harmless(str(folder / own[0]), is_mapped=True) if own else first
                state = load_harmless(str(folder / optim[0]), is_mapped=True)["optimizer_state_dict"]
                self._states.append(state)
                places = {own: Place(*place) for own, place in told[worker]["places"].items()}
                self._index(places, _pieces(state, model_states, places))
        if not self._states:
            self._states.append(first["optimizer"])
            places = {own: Place(*place) for own, place in told[0]["places"].items()}
            self._index(places, _pieces_without_zero(first, told[0]["order"]))
        self._place_in_order()

    def kinds(self, name: str) -> list[str]:
        """List the kinds of tensors that a parameter has: `fp32` and the optimiser's states."""
        return list(self._of(name).shares[0][0].flats)

    def steps(self, name: str) -> Tensor | None:
        """Tell the optimiser's step of a parameter."""
        return self._of(name).shares[0][0].steps

    def tensor(self, name: str, kind: str) -> Tensor:
        """Put a tensor together.

        Args:
            name: Hugging Face's.
            kind: One of `kinds`.

        Returns:
            The whole tensor, on the CPU.

        Raises:
            ArtifactError: Pieces of it are missing.
        """
        told = self._of(name)
        shares = []
        for rank in sorted(told.shares):
            flat = torch.empty(math.prod(told.shape), dtype=told.shares[rank][0].flats[kind].dtype)
            end = 0
            for piece in sorted(told.shares[rank], key=lambda piece: piece.start):
                if piece.start > end:
                    break
                flat[piece.start :][: piece.size] = piece.flats[kind][piece.offset :][: piece.size]
                end = max(end, piece.start + piece.size)
            if end < flat.numel():
                raise ArtifactError(f"the checkpoint holds only {end} of {flat.numel()} numbers of {name} ({kind})")
            shares.append(flat.view(told.shape))
        return told.rule.join(shares)

    def restore_counters(self, inner: Any) -> None:
        """Give DeepSpeed's engine the counts of steps and, under fp16, the loss scale.

        Args:
            inner: DeepSpeed's engine.
        """
        for name in ("global_steps", "global_samples", "skipped_steps"):
            setattr(inner, name, self._counters[name])
        scaler = self._states[0].get("loss_scaler")
        if inner.fp16_enabled() and scaler is not None and hasattr(inner.optimizer, "loss_scaler"):
            inner.optimizer.loss_scaler = scaler

    def _of(self, name: str) -> _Parameter:
        if name not in self._parameters:
            raise ArtifactError(f"the checkpoint has no parameter {name}: it is of another model")
        return self._parameters[name]

    def _index(self, places: Mapping[str, Place], pieces: Iterator[tuple[str, Piece]]) -> None:
        for own, piece in pieces:
            place = places[own]
            rule = Rule(place.dimension, place.parts)
            parameter = self._parameters.setdefault(place.name, _Parameter(rule, tuple(place.shape)))
            parameter.shares.setdefault(place.rank, []).append(piece)

    def _place_in_order(self) -> None:
        """Find where pieces of ZeRO 1 and 2 begin: the files tell only their sizes, workers hold them in order."""
        for parameter in self._parameters.values():
            for pieces in parameter.shares.values():
                end = 0
                for number, piece in enumerate(pieces):
                    if piece.start < 0:
                        start = end % math.prod(parameter.shape)  # a tied weight is held by two stages, once each
                        pieces[number] = Piece(start, piece.size, piece.flats, piece.offset, piece.steps)
                        end = start + piece.size


def _pieces(
    state: Mapping[str, Any], model: Mapping[str, Any], places: Mapping[str, Place]
) -> Iterator[tuple[str, Piece]]:
    """Read one worker's pieces, by the engine's names; the start is -1 where the file does not tell it."""
    if "fp32_flat_groups" in state:
        yield from _pieces_of_stage_three(state, model["param_shapes"], places)
        return
    states = state["base_optimizer_state"]["state"]
    for number, mapping in enumerate(state["param_slice_mappings"]):
        flats, steps = _flats(state["single_partition_of_fp32_groups"][number], states.get(number, {}))
        for name, address in mapping.items():
            yield name, Piece(-1, address.numel, flats, address.start, steps)


def _pieces_of_stage_three(
    state: Mapping[str, Any], shapes: Any, places: Mapping[str, Place]
) -> Iterator[tuple[str, Piece]]:
    states = state["optimizer_state_dict"]["state"]
    for number, group in enumerate(shapes):
        flats, steps = _flats(state["fp32_flat_groups"][number], states.get(number, {}))
        offset = 0
        for name, shape in group.items():
            size = -(-shape.numel() // places[name].partitions)
            start = places[name].partition * size
            held = max(0, min(size, shape.numel() - start))
            if held:
                yield name, Piece(start, held, flats, offset, steps)
            offset += size


def _pieces_without_zero(model: Mapping[str, Any], order: Sequence[str]) -> Iterator[tuple[str, Piece]]:
    optimiser = model["optimizer"]
    if "fp32_groups" in optimiser:  # bf16 or fp16: the weights proper lie beside the optimiser's state
        weights = [weight for group in optimiser["fp32_groups"] for weight in group]
        states = optimiser["optimizer_state_dict"]["state"]
    else:
        weights, states = None, optimiser["state"]
    for number, name in enumerate(order):
        weight = model["module"][name] if weights is None else weights[number]
        flats, steps = _flats(weight.reshape(-1), states.get(number, {}))
        yield name, Piece(0, weight.numel(), {kind: flat.reshape(-1) for kind, flat in flats.items()}, 0, steps)


def _flats(fp32: Tensor, states: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor | None]:
    moments = {kind: value for kind, value in states.items() if isinstance(value, Tensor) and value.dim()}
    return {FP32: fp32, **moments}, states.get("step")


def _places(engine: Any) -> dict[str, Place]:
    """Tell what this worker has of each parameter, by the engine's names."""
    found = {}
    stages = getattr(engine, "stages", None)
    for own, parameter in engine.deepspeed.module.named_parameters():
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        name, dimension, parts, rank, size = own, None, 1, 0, 1
        if stages is not None:
            group = stages.tensor_group
            name, rank, size = to_hugging_face_name(own, stages.config), group.rank, group.size
            rule = rule_of(name, stages.config, size)
            dimension, parts = rule.dimension if size > 1 else None, rule.parts
        elif is_shared_out(parameter):
            experts = group_of(parameter)
            dimension, rank, size = 0, dist.get_rank(experts), dist.get_world_size(experts)
        peers = getattr(parameter, "ds_process_group", None)  # of ZeRO-3
        cut = (dist.get_rank(peers), dist.get_world_size(peers)) if hasattr(parameter, "ds_id") else (0, 1)
        found[own] = Place(name, dimension, parts, shape, rank, size, *cut)
    return found


def _is_model(path: str) -> bool:
    """Whether a file holds a worker's general state; a pipeline writes its layers into further ones."""
    return path.endswith("model_states.pt") and not Path(path).name.startswith("layer_")
