"""Waiting for a cluster's nodes: those that start again after their head did, or that an autoscaler adds."""

from __future__ import annotations

import os
import time

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from qwen_core.parallel.plan import Cluster

ONE_MACHINE = "QWEN_CORE_ONE_MACHINE"
"""Environment variable: set where the Ray is of one machine, to which nothing is ever added."""

_POLL_SECONDS = 2.0


def await_nodes(stage: str, bundle: dict[str, float], num_workers: int, timeout_seconds: float) -> Cluster:
    """Wait until a cluster has what the workers need; a Ray of one machine is not waited for.

    While it waits a placement group asks for the nodes, as an autoscaler wants it; it goes with the driver that dies.

    Args:
        stage: For the message.
        bundle: What each worker needs of `CPU` and `GPU`.
        num_workers: Of them.
        timeout_seconds: How long.

    Returns:
        What the cluster has, enough or not.
    """
    is_growing = "RAY_ADDRESS" in os.environ and not os.environ.get(ONE_MACHINE)
    until = time.monotonic() + (timeout_seconds if is_growing else 0)
    asked = None
    try:
        while True:
            have = ray.cluster_resources()
            lacking = [
                f"{have.get(kind, 0):g} of {each * num_workers:g} {kind}s"
                for kind, each in bundle.items()
                if have.get(kind, 0) < each * num_workers
            ]
            if not lacking or time.monotonic() >= until:
                return Cluster(have.get("CPU", 0), have.get("GPU", 0))
            if asked is None:
                asked = placement_group([bundle] * num_workers, strategy="PACK")
                print(
                    f"[{stage}] the Ray cluster has {' and '.join(lacking)}: waiting up to {timeout_seconds:.0f} s for "
                    "nodes (parallel.wait_for_nodes_seconds)",
                    flush=True,
                )
            time.sleep(_POLL_SECONDS)
    finally:
        if asked is not None:
            remove_placement_group(asked)
