"""The full weights of a model that is spread over stages and tensor groups, one at a time, on rank 0.

each stage of the first copy: shares ─▶ rank 0: joined by the rule of the table (`layout`)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from qwen_core.parallel.layout import in_order, rule_of

if TYPE_CHECKING:
    from qwen_core.parallel.pipeline import Stages


def gather_weights(stages: Stages) -> Iterator[tuple[str, Tensor]]:
    """Bring the full weights to rank 0; every worker must iterate to the end.

    Args:
        stages: This worker's part of the model.

    Yields:
        Hugging Face names and tensors on the CPU, in the order of the layers; on rank 0 alone.
    """
    own = stages.named_weights()
    held: list[dict[str, tuple[int, ...]]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(held, {name: tuple(weight.shape) for name, weight in own.items()})
    topology, tensor = stages.topology(), stages.tensor_group.size
    for name in in_order({name for names in held for name in names}):
        rule = rule_of(name, stages.config, tensor)
        stage = topology.get_coord(next(rank for rank, names in enumerate(held) if name in names)).pipe
        places = range(tensor if rule.dimension is not None else 1)
        holders = [topology.get_rank(pipe=stage, data=0, model=place) for place in places]
        shares = [_share(own.get(name), holder, held[holder][name], stages) for holder in holders]
        if dist.get_rank() == 0:
            yield name, rule.join([share for share in shares if share is not None])


def _share(own: Tensor | None, holder: int, shape: tuple[int, ...], stages: Stages) -> Tensor | None:
    """Send a share to rank 0, or receive it there."""
    rank = dist.get_rank()
    if rank == holder and own is not None:
        if rank == 0:
            return own.detach().to("cpu", copy=True)
        dist.send(own.detach().contiguous(), 0)
    elif rank == 0:
        like = next(stages.parameters())
        share = torch.empty(shape, dtype=like.dtype, device=like.device)
        dist.recv(share, holder)
        return share.cpu()
    return None
