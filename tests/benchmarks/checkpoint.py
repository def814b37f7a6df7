"""What a checkpoint every ten steps costs: written beside the training, in its way, and none at all."""

from __future__ import annotations

import tempfile

from tests.benchmarks.checkpoint_training import work
from tests.parallel.spread import spread


def main() -> None:
    """Two CPU workers under ZeRO-3; the three modes take turns in one run."""
    with tempfile.TemporaryDirectory() as folder:
        told = spread(work, 2, folder)[0]
    print("A checkpoint every 10 steps, ZeRO-3 x 2, the model of the training benchmark")
    plain = told["none"][0]
    for name, (seconds, blocked) in told.items():
        cost = (
            "" if name == "none" else f"   {100 * (seconds / plain - 1):+5.1f}%   held up for {1000 * blocked:4.0f} ms"
        )
        print(f"  {name:14} {1000 * seconds:7.0f} ms a step{cost}")
