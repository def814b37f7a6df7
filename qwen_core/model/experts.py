"""Names of experts: stacked in memory, one tensor for each expert on disk, as Qwen publishes them.

    model.layers.0.mlp.experts.gate_up_proj  [X, 2I, E]  ◀─▶  model.layers.0.mlp.experts.<i>.gate_proj.weight  [I, E]
                                                               model.layers.0.mlp.experts.<i>.up_proj.weight    [I, E]
    model.layers.0.mlp.experts.down_proj     [X, E, I]   ◀─▶  model.layers.0.mlp.experts.<i>.down_proj.weight  [E, I]

Both ways stream: one tensor goes in at a time, and what is complete comes out, so that a checkpoint larger than the
memory's free part passes through. All other names pass unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.model.shards import Named

PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""Each stacked tensor's matrices of one expert, in the order of their rows."""

_STACKED_OF = {part: stacked for stacked, parts in PARTS.items() for part in parts}
_STACKED = re.compile(r"(?P<prefix>.*\.experts)\.(?P<part>gate_up_proj|down_proj)$")
_SINGLE = re.compile(r"(?P<prefix>.*\.experts)\.(?P<expert>\d+)\.(?P<part>gate_proj|up_proj|down_proj)\.weight$")


def split_experts(tensors: Iterable[Named]) -> Iterator[Named]:
    """Name each expert's matrices by themselves.

    Args:
        tensors: Names and tensors of a model in memory.

    Yields:
        Names and tensors as they stand on disk; an expert's are views of the stacked ones, each contiguous.
    """
    for name, tensor in tensors:
        match = _STACKED.match(name)
        if match is None:
            yield name, tensor
            continue
        parts = PARTS[match["part"]]
        for expert, matrices in enumerate(tensor.unbind()):
            for part, matrix in zip(parts, matrices.chunk(len(parts)), strict=True):
                yield f"{match['prefix']}.{expert}.{part}.weight", matrix


@dataclass
class _Stack:
    """A stacked tensor that is being filled."""

    tensor: Tensor
    missing: set[tuple[int, str]] = field(default_factory=set)


def stack_experts(tensors: Iterable[Named], num_experts: int) -> Iterator[Named]:
    """Stack the experts' matrices of each layer.

    Args:
        tensors: Names and tensors as they stand on disk, in any order.
        num_experts: Of each sparse layer.

    Yields:
        Names and tensors as the model has them in memory; a stacked tensor as soon as its last expert was seen.

    Raises:
        ArtifactError: An expert is missing, is there twice, has a number too high or another shape than its
            neighbours.
    """
    open_stacks: dict[str, _Stack] = {}
    for name, tensor in tensors:
        match = _SINGLE.match(name)
        if match is None:
            yield name, tensor
            continue
        part, expert = match["part"], int(match["expert"])
        stacked = f"{match['prefix']}.{_STACKED_OF[part]}"
        if expert >= num_experts:
            raise ArtifactError(
                f"{name}: the model has {num_experts} experts, numbered from 0; is config.json its own?"
            )
        if stacked not in open_stacks:
            open_stacks[stacked] = _begin(part, tensor, num_experts)
        _fill(open_stacks[stacked], name, expert, part, tensor)
        if not open_stacks[stacked].missing:
            yield stacked, open_stacks.pop(stacked).tensor
    if open_stacks:
        lacks = {f"{name.rsplit('.', 1)[0]}.{i}.{part}" for name, one in open_stacks.items() for i, part in one.missing}
        raise ArtifactError(
            f"{len(lacks)} matrices of experts are missing, the first of them {min(lacks)}.weight; "
            "the files are incomplete, or num_experts in config.json is not theirs"
        )


def _begin(part: str, tensor: Tensor, num_experts: int) -> _Stack:
    """Make room for all experts of a layer, from the first one's shape."""
    parts = PARTS[_STACKED_OF[part]]
    room = torch.empty(num_experts, len(parts) * tensor.shape[0], tensor.shape[1], dtype=tensor.dtype)
    return _Stack(room, {(expert, title) for expert in range(num_experts) for title in parts})


def _fill(stack: _Stack, name: str, expert: int, part: str, tensor: Tensor) -> None:
    """Copy one expert's matrix to its place."""
    if (expert, part) not in stack.missing:
        raise ArtifactError(f"{name} is there twice")
    parts = PARTS[_STACKED_OF[part]]
    room = stack.tensor[expert].chunk(len(parts))[parts.index(part)]
    if room.shape != tensor.shape:
        raise ArtifactError(f"{name} has shape {list(tensor.shape)}, where others of its layer have {list(room.shape)}")
    room.copy_(tensor)
    stack.missing.remove((expert, part))
