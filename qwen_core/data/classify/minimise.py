"""L-BFGS (Nocedal, 1980; line search by halving) with sums that do not depend on the number of threads.

SciPy's own hands its sums to a linear algebra library, which splits them by the threads of the machine: the last digits
then differ, and with them the bytes of a model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_MEMORY = 10
_HALVINGS = 20
_ENOUGH = 1e-4  # of the decrease that the slope promises (Armijo)
_FLAT = 1e-6  # relative decrease at which it stops


def inner(left: Floats, right: Floats) -> float:
    """Compute an inner product in one thread.

    Args:
        left: A vector.
        right: As long.

    Returns:
        The sum of the products.
    """
    return float(np.einsum("i,i->", left, right))


def minimise(loss: Callable[[Floats], tuple[float, Floats]], start: Floats, iterations: int) -> Floats:
    """Minimise a smooth convex function.

    Args:
        loss: Gives value and gradient at a point.
        start: Where to begin.
        iterations: Most steps.

    Returns:
        The best point found.
    """
    point = start
    value, gradient = loss(point)
    steps: list[tuple[Floats, Floats, float]] = []
    for _ in range(iterations):
        direction = _direction(gradient, steps)
        slope = inner(gradient, direction)
        size = 1.0 if steps else 1.0 / max(1.0, float(np.abs(gradient).max()))
        for _ in range(_HALVINGS):
            new_point = point + size * direction
            new_value, new_gradient = loss(new_point)
            if new_value <= value + _ENOUGH * size * slope:
                break
            size /= 2
        else:
            break
        moved, turned = new_point - point, new_gradient - gradient
        curvature = inner(moved, turned)
        if curvature > 0:
            steps = [*steps[1 - _MEMORY :], (moved, turned, curvature)]
        is_flat = value - new_value <= _FLAT * abs(value)
        point, value, gradient = new_point, new_value, new_gradient
        if is_flat:
            break
    return point


def _direction(gradient: Floats, steps: list[tuple[Floats, Floats, float]]) -> Floats:
    """Multiply the gradient by the inverse curvature that the last steps tell of."""
    direction = -gradient
    shares = []
    for moved, turned, curvature in reversed(steps):
        share = inner(moved, direction) / curvature
        shares.append(share)
        direction = direction - share * turned
    if steps:
        _, turned, curvature = steps[-1]
        direction = direction * (curvature / inner(turned, turned))
    for (moved, turned, curvature), share in zip(steps, reversed(shares), strict=True):
        direction = direction + (share - inner(turned, direction) / curvature) * moved
    return direction
