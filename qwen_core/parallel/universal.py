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

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.parallel.layout import Rule, rule_of, to_hugging_face_name
from qwen_core.parallel.snapshot import load_harmless

FP32 = "fp32"
_RANK = re.compile(r"zero_pp_rank_(\d+)_")
Names = dict[str, tuple[str, int | None, int, tuple[int, ...]]]
"""By the engine's own name: Hugging Face's, the dimension that is split, stacked parts along it, shape of the share."""


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
        Plain values: `names`, the worker's rank in its tensor group, and the order of an optimiser without ZeRO.
    """
    inner = engine.deepspeed
    groups = inner.optimizer.param_groups if not inner.zero_optimization() else []
    by_parameter = {parameter: name for name, parameter in inner.module.named_parameters()}
    return {
        "names": {name: list(told) for name, told in _names(engine).items()},
        "tensor_rank": engine.stages.tensor_group.rank if hasattr(engine, "stages") else 0,
        "order": [[by_parameter.get(parameter, "") for parameter in group["params"]] for group in groups],
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
    names = _names(engine)
    group = engine.stages.tensor_group if hasattr(engine, "stages") else None
    rank, size = (group.rank, group.size) if group is not None else (0, 1)
    for name, slot in _slots(inner):
        title, dimension, parts, _ = names[name]
        rule = Rule(dimension, parts)
        for kind in whole.kinds(title):
            share = rule.take(whole.tensor(title, kind), rank, size).reshape(-1)
            _fill(inner.optimizer, slot, kind, share, whole.steps(title))
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
                rank = int((_RANK.search(optim[0]) or _fault(optim[0]))[1])
                self._states.append(state)
                self._index(told[worker], _pieces(state, model_states, rank))
        if not self._states:
            self._states.append(first["optimizer"])
            self._index(told[0], _pieces_without_zero(first, told[0]["order"]))
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
            flat = torch.empty(_count(told.shape), dtype=told.shares[rank][0].flats[kind].dtype)
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

    def _index(self, told: Mapping[str, Any], pieces: Iterator[tuple[str, Piece]]) -> None:
        for own, piece in pieces:
            name, dimension, parts, shape = told["names"][own]
            parameter = self._parameters.setdefault(name, _Parameter(Rule(dimension, parts), tuple(shape)))
            parameter.shares.setdefault(told["tensor_rank"], []).append(piece)

    def _place_in_order(self) -> None:
        """Find where pieces of ZeRO 1 and 2 begin: the files tell only their sizes, workers hold them in order."""
        for parameter in self._parameters.values():
            for pieces in parameter.shares.values():
                end = 0
                for number, piece in enumerate(pieces):
                    if piece.start < 0:
                        start = end % _count(parameter.shape)  # a tied weight is held by two stages, once each
                        pieces[number] = Piece(start, piece.size, piece.flats, piece.offset, piece.steps)
                        end = start + piece.size


def _pieces(state: Mapping[str, Any], model: Mapping[str, Any], rank: int) -> Iterator[tuple[str, Piece]]:
    """Read one worker's pieces, by the engine's names; the start is -1 where the file does not tell it."""
    if "fp32_flat_groups" in state:
        yield from _pieces_of_stage_three(state, model["param_shapes"], rank)
        return
    states = state["base_optimizer_state"]["state"]
    for number, mapping in enumerate(state["param_slice_mappings"]):
        flats, steps = _flats(state["single_partition_of_fp32_groups"][number], states.get(number, {}))
        for name, address in mapping.items():
            yield name, Piece(-1, address.numel, flats, address.start, steps)


def _pieces_of_stage_three(state: Mapping[str, Any], shapes: Any, rank: int) -> Iterator[tuple[str, Piece]]:
    states = state["optimizer_state_dict"]["state"]
    workers = state["partition_count"]
    workers = workers[0] if isinstance(workers, (list, tuple)) else workers
    for number, group in enumerate(shapes):
        flats, steps = _flats(state["fp32_flat_groups"][number], states.get(number, {}))
        offset = 0
        for name, shape in group.items():
            size = -(-shape.numel() // workers)
            held = max(0, min(size, shape.numel() - rank * size))
            if held:
                yield name, Piece(rank * size, held, flats, offset, steps)
            offset += size


def _pieces_without_zero(model: Mapping[str, Any], order: Sequence[Sequence[str]]) -> Iterator[tuple[str, Piece]]:
    optimiser = model["optimizer"]
    if "fp32_groups" in optimiser:  # bf16 or fp16: the weights proper lie beside the optimiser's state
        weights = [weight for group in optimiser["fp32_groups"] for weight in group]
        states = optimiser["optimizer_state_dict"]["state"]
    else:
        weights, states = None, optimiser["state"]
    for number, name in enumerate(name for group in order for name in group):
        weight = model["module"][name] if weights is None else weights[number]
        flats, steps = _flats(weight.reshape(-1), states.get(number, {}))
        yield name, Piece(0, weight.numel(), {kind: flat.reshape(-1) for kind, flat in flats.items()}, 0, steps)


def _flats(fp32: Tensor, states: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor | None]:
    moments = {kind: value for kind, value in states.items() if isinstance(value, Tensor) and value.dim()}
    return {FP32: fp32, **moments}, states.get("step")


@dataclass(frozen=True)
class _Slot:
    """Where a run of a parameter's numbers lies in this worker's optimiser."""

    flat: Tensor
    start: int
    offset: int
    size: int


def _slots(inner: Any) -> Iterator[tuple[str, _Slot]]:
    """Walk through this worker's optimiser: for each parameter, by the engine's name, the numbers that lie here."""
    optimizer = inner.optimizer
    if inner.zero_optimization_stage() == 3:
        yield from _slots_of_stage_three(inner)
        return
    groups = getattr(optimizer, "bit16_groups", None) or getattr(optimizer, "bf16_groups", None)
    if groups is None:
        yield from _slots_without_zero(inner)
        return
    flats = getattr(optimizer, "single_partition_of_fp32_groups", None)
    for number, flat in enumerate(optimizer.fp32_groups_flat_partition if flats is None else flats):
        for parameter in groups[number]:
            mapping = parameter._hp_mapping
            if mapping is not None:
                here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
                yield inner.param_names[parameter], _Slot(flat, there.start, here.start, here.numel)


def _slots_of_stage_three(inner: Any) -> Iterator[tuple[str, _Slot]]:
    optimizer = inner.optimizer
    for flat, parameters in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        offset = 0
        for parameter in parameters:
            size = parameter.partition_numel()
            start = size * torch.distributed.get_rank(parameter.ds_process_group)
            held = min(size, parameter.ds_numel - start)
            if held > 0:
                yield inner.param_names[parameter], _Slot(flat, start, offset, held)
            offset += size


def _slots_without_zero(inner: Any) -> Iterator[tuple[str, _Slot]]:
    optimizer = inner.optimizer
    halves = [parameter for group in getattr(optimizer, "fp16_groups", []) for parameter in group]
    masters = [weight for group in getattr(optimizer, "fp32_groups", []) for weight in group]
    plain = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    pairs = zip(halves, masters, strict=True) if masters else zip(plain, plain, strict=True)
    names = {parameter: name for name, parameter in inner.module.named_parameters()}
    for parameter, master in pairs:
        yield names[parameter], _Slot(master, 0, 0, master.numel())


@torch.no_grad()
def _fill(optimizer: Any, slot: _Slot, kind: str, share: Tensor, steps: Tensor | None) -> None:
    """Copy a run of numbers to its place, which is made where the optimiser has none yet."""
    basis = getattr(optimizer, "optimizer", optimizer)  # torch's, inside DeepSpeed's
    if kind == FP32:
        target = slot.flat
    else:
        state = basis.state[slot.flat]
        if steps is not None:
            state["step"] = steps.clone()
        if kind not in state:
            state[kind] = torch.zeros_like(slot.flat)
        target = state[kind]
    target.view(-1)[slot.offset :][: slot.size] = share[slot.start :][: slot.size].to(target)


@torch.no_grad()
def refresh(inner: Any) -> None:
    """Make the weights of the training dtype anew from the fp32 ones; every worker must call.

    Needed after DeepSpeed's own loading too: a pipeline saves no weights of layers that are tied by a `forward_fn`, so
    that an embedding which is the head too would stay as it was initialised until the first step.

    Args:
        inner: DeepSpeed's engine.
    """
    optimizer = inner.optimizer
    if inner.zero_optimization_stage() == 3:
        for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            halves = optimizer.fp16_partitioned_groups_flat[number]
            halves.data.copy_(flat.data)
            parts = optimizer.unflatten(halves, optimizer.fp16_partitioned_groups[number])
            for target, part in zip(optimizer.fp16_partitioned_groups[number], parts, strict=True):
                target.data = part.data
        return
    if hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
        if hasattr(optimizer, "_link_all_hp_params"):
            optimizer._link_all_hp_params()
        return
    for halves, masters in zip(
        getattr(optimizer, "fp16_groups", []), getattr(optimizer, "fp32_groups", []), strict=True
    ):
        for half, master in zip(halves, masters, strict=True):
            half.data.copy_(master.data)


def _names(engine: Any) -> Names:
    """Give this worker's parameters, by the engine's names."""
    found: Names = {}
    stages = getattr(engine, "stages", None)
    for name, parameter in engine.deepspeed.module.named_parameters():
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        if stages is None:
            found[name] = (name, None, 1, shape)
        else:
            title = to_hugging_face_name(name, stages.config)
            rule = rule_of(title, stages.config, stages.tensor_group.size)
            found[name] = (title, rule.dimension if stages.tensor_group.size > 1 else None, rule.parts, shape)
    return found


def _is_model(path: str) -> bool:
    """Whether a file holds a worker's general state; a pipeline writes its layers into further ones."""
    return path.endswith("model_states.pt") and not Path(path).name.startswith("layer_")


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _fault(file: str) -> Any:
    raise ArtifactError(f"{file} is not named as DeepSpeed 0.19.8 names its shards")
