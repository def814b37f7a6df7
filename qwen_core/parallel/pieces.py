"""Which numbers of a worker's flat tensor belong to which matrix: ZeRO cuts wherever it likes.

The experts of a sparse layer, [E, a, b], are E matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Numbers of one matrix that lie in a worker's flat tensor: `size` of them from `start`, there from `offset`."""

    matrix: int
    start: int
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """Which matrices a flat tensor is cut from, and which pieces of them this worker holds.

    Attributes:
        shapes: Of all matrices of the group, the same on every worker.
        pieces: What lies here.
        group: Workers that hold the other pieces; `None` is the world.
    """

    shapes: tuple[tuple[int, ...], ...]
    pieces: tuple[Piece, ...]
    group: Any = None


def whole(parameter: Tensor) -> Layout:
    """Describe a parameter that lies here whole: one matrix, or one for each expert."""
    shapes = matrices_of(parameter.shape)
    size = math.prod(shapes[0])
    return Layout(shapes, tuple(Piece(number, 0, number * size, size) for number in range(len(shapes))))


def matrices_of(shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """List the matrices of a parameter: itself, or with three dimensions one for each entry of the first."""
    return (tuple(shape[1:]),) * shape[0] if len(shape) == 3 else (tuple(shape),)


def cut(shapes: Sequence[Sequence[int]], fragments: Sequence[tuple[int, int, int, int]], group: Any) -> Layout:
    """Make a layout of fragments of whole parameters, which may begin and end anywhere.

    Args:
        shapes: Of all parameters of the group.
        fragments: (parameter, start within it, offset in the flat tensor, numbers).
        group: Process group of the workers that share them.

    Returns:
        The layout by matrices.
    """
    first: list[int] = []
    matrices: list[tuple[int, ...]] = []
    for shape in shapes:
        first.append(len(matrices))
        matrices.extend(matrices_of(shape))
    pieces = []
    for parameter, start, offset, count in fragments:
        size = math.prod(matrices[first[parameter]])
        position, end = start, start + count
        while position < end:
            number, inside = divmod(position, size)
            taken = min(size - inside, end - position)
            pieces.append(Piece(first[parameter] + number, inside, offset + position - start, taken))
            position += taken
    return Layout(tuple(matrices), tuple(pieces), group)
