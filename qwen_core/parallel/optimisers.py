"""Optimisers: AdamW, LAMB and Muon, also right where a worker holds only pieces of the weights.

    named parameters ─▶ groups (decay or not, Muon or AdamW, learning rate) ─▶ optimiser ◀─ layouts (pieces ─▶ matrices)

ZeRO lays all weights of a group into one flat tensor and gives each worker a cut of it. AdamW works on single numbers
and does not mind. LAMB needs the norm of each layer's weights and Muon needs whole matrices: a `Layout` tells both
which numbers of the flat tensor belong to which matrix, so that norms are summed and matrices are brought together
over the workers. Where a tensor has no layout it is a whole parameter.

 - AdamW: Loshchilov & Hutter, 2019, arXiv 1711.05101; torch's own, fused.
 - LAMB: You et al., 2020, arXiv 1904.00962, algorithm 2, with phi the identity.
 - Muon: Jordan et al., 2024, kellerjordan.github.io/posts/muon, with decoupled weight decay as Liu et al., 2025,
   arXiv 2502.16982, found to be needed in long runs; each step's rate times sqrt(max(1, rows / columns)).

The experts of a sparse layer, [E, a, b], are E matrices: each has its own norm and its own orthogonalisation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from qwen_core.parallel.expert import separate_experts
from qwen_core.parallel.pieces import Layout, whole

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's quintic iteration: singular values of 0 to 1 come close to 1 in five rounds."""
_NEWTON_SCHULZ_ROUNDS = 5
_GATHER_BYTES = 512 * 2**20
"""Matrices that Muon brings together at a time: few enough for a GPU, many enough to share out the work."""
_ROUTER = re.compile(r"\.(gate|shared_expert_gate)\.weight$")
_EMBEDDING = re.compile(r"(embed_tokens|lm_head)\.weight$")


@dataclass(frozen=True)
class Optimisation:
    """What an optimiser needs to know.

    Attributes:
        name: `adamw`, `lamb` or `muon`.
        learning_rate: At the top of the schedule.
        muon_learning_rate: Of the matrices that Muon turns; AdamW's groups keep `learning_rate`.
        betas: Decay of the moments of AdamW and LAMB, each 0 to 1.
        eps: Added to the root of the second moment.
        weight_decay: Of matrices, per unit of learning rate; norms and biases decay nothing.
        decay_embeddings: Whether embeddings and the head decay too.
        grad_clip: Largest global gradient norm, taken before any optimiser's own scaling.
        momentum: Muon's.
        scales: Factors on the learning rate by parameter name (muP); 1 where a name is missing.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    decay_embeddings: bool = True
    grad_clip: float = 1.0
    momentum: float = 0.95
    scales: Mapping[str, float] = field(default_factory=dict)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], optim: Optimisation) -> list[dict[str, Any]]:
    """Split trainable parameters into groups that share decay, method and learning rate.

    Args:
        named: Hugging Face names and parameters, on any device, whole or partitioned.
        optim: What the optimiser needs to know.

    Returns:
        Groups in a fixed order; `peak_lr` is each one's learning rate at the top of the schedule.
    """
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            shape = _shape(parameter)
            decays = len(shape) >= 2 and (optim.decay_embeddings or not _EMBEDDING.search(name))
            turns = optim.name == "muon" and is_for_muon(name, shape)
            groups.setdefault((decays, turns, optim.scales.get(name, 1.0)), []).append(parameter)
    result = []
    for (decays, turns, scale), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True):
        # muP's scales are for Adam; the size of Muon's updates does not depend on the width
        rate = optim.muon_learning_rate if turns else scale * optim.learning_rate
        decay = optim.weight_decay if decays else 0.0
        result.append({"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay, "use_muon": turns})
    return separate_experts(result)


def is_for_muon(name: str, shape: Sequence[int]) -> bool:
    """Say whether Muon turns a parameter: matrices inside the layers, not embeddings, head or routers.

    A router's rows are classes, as an output head's are: it stays with AdamW.

    Args:
        name: Hugging Face's.
        shape: Of the whole parameter.

    Returns:
        Whether it does.
    """
    return len(shape) >= 2 and not _EMBEDDING.search(name) and not _ROUTER.search(name) and "lora_" not in name


def make_optimiser(named: Iterable[tuple[str, nn.Parameter]], optim: Optimisation) -> Optimizer:
    """Build an optimiser over named parameters.

    Args:
        named: Hugging Face names and parameters.
        optim: What it needs to know.

    Returns:
        A torch optimiser; `Lamb` and `Muon` take `layouts` once the weights are partitioned.
    """
    groups = parameter_groups(named, optim)
    kwargs: dict[str, Any] = {"lr": optim.learning_rate, "betas": optim.betas, "eps": optim.eps}
    if optim.name == "lamb":
        return Lamb(groups, **kwargs)
    if optim.name == "muon":
        return Muon(groups, **kwargs, momentum=optim.momentum)
    return AdamW(groups, **kwargs, fused=True)


class Lamb(Optimizer):
    """LAMB: Adam's update of each layer, scaled to the norm of the layer's weights."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        """Take groups; those that do not decay (norms, biases) are not scaled either, as in the authors' runs."""
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.layouts: dict[Tensor, Layout] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all groups from their gradients; see torch."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        update = _adam_direction(self.state[parameter], parameter.grad, group["betas"], group["eps"])  # type: ignore[arg-type]
        if not group["weight_decay"]:
            parameter.add_(update, alpha=-group["lr"])
            return
        update.add_(parameter, alpha=group["weight_decay"])
        layout = self.layouts.get(parameter) or whole(parameter)
        flat, flat_update = parameter.view(-1), update.view(-1)
        squares = torch.zeros(2, len(layout.shapes), dtype=torch.float64, device=flat.device)
        for piece in layout.pieces:
            cut = slice(piece.offset, piece.offset + piece.size)
            squares[0, piece.matrix] += flat[cut].double().square().sum()
            squares[1, piece.matrix] += flat_update[cut].double().square().sum()
        if parameter in self.layouts:
            _sum(squares, layout.group)
        norms = squares.sqrt()
        trust = torch.where((norms[0] > 0) & (norms[1] > 0), norms[0] / norms[1], 1.0).float()
        for piece in layout.pieces:
            flat_update[piece.offset : piece.offset + piece.size].mul_(trust[piece.matrix])
        parameter.add_(update, alpha=-group["lr"])


class Muon(AdamW):
    """Muon for the groups that say `use_muon`, AdamW for the others."""

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, momentum: float
    ) -> None:
        """Take groups; `momentum` is Muon's."""
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=True)
        self.layouts: dict[Tensor, Layout] = {}
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all groups from their gradients; see torch."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["use_muon"]]
        if self.param_groups:
            super().step()
        self.param_groups = groups
        for group in groups:
            if group["use_muon"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._turn(parameter, group)

    def _turn(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
        state["step"] += 1
        gradient: Tensor = parameter.grad  # type: ignore[assignment]
        state["exp_avg"].lerp_(gradient, 1 - self._momentum)
        update = gradient.lerp(state["exp_avg"], self._momentum)  # Nesterov's
        spread = parameter in self.layouts
        orthogonalise(update.view(-1), self.layouts[parameter] if spread else whole(parameter), spread)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"])


def orthogonalise(flat: Tensor, layout: Layout, is_spread: bool) -> None:
    """Turn each matrix of a flat tensor into one near to its orthogonal factor, in place.

    Each matrix is brought together at one worker, turned there and sent back to all, so that the work is shared out.

    Args:
        flat: [n], this worker's pieces.
        layout: Whose they are.
        is_spread: Whether other workers hold pieces too.
    """
    world = dist.get_world_size(layout.group) if is_spread else 1
    rank = dist.get_rank(layout.group) if is_spread else 0
    dtype = torch.bfloat16 if flat.is_cuda else flat.dtype  # on a CPU bf16 gains nothing and loses digits
    for first, last in _rounds(layout.shapes, world, dtype.itemsize):
        pieces = [piece for piece in layout.pieces if first <= piece.matrix < last]
        matrices = {
            number: torch.zeros(math.prod(layout.shapes[number]), dtype=dtype, device=flat.device)
            for number in range(first, last)
        }
        for piece in pieces:
            matrices[piece.matrix][piece.start :][: piece.size] = flat[piece.offset :][: piece.size]
        if world > 1:
            _each(dist.reduce, matrices, world, layout.group)
        for number, matrix in matrices.items():
            if number % world == rank:
                matrix.copy_(_newton_schulz(matrix.view(layout.shapes[number])).view(-1))
        if world > 1:
            _each(dist.broadcast, matrices, world, layout.group)
        for piece in pieces:
            flat[piece.offset :][: piece.size] = matrices[piece.matrix][piece.start :][: piece.size]


def _adam_direction(state: dict[str, Any], gradient: Tensor, betas: tuple[float, float], eps: float) -> Tensor:
    """Advance the moments; return Adam's bias-corrected direction, a new tensor."""
    if not state:
        state["step"] = torch.zeros((), device=gradient.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    state["step"] += 1
    steps = float(state["step"])
    state["exp_avg"].lerp_(gradient, 1 - betas[0])
    state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    root = (state["exp_avg_sq"] / (1 - betas[1] ** steps)).sqrt_().add_(eps)
    return torch.div(state["exp_avg"], root, out=root).div_(1 - betas[0] ** steps)


def _newton_schulz(matrix: Tensor) -> Tensor:
    """Bring all singular values of [a, b] near to 1 (Jordan), times sqrt(max(1, a / b))."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(_NEWTON_SCHULZ_ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if is_tall else x
    scale: float = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    return x * scale


def _rounds(shapes: Sequence[Sequence[int]], world: int, itemsize: int) -> Iterable[tuple[int, int]]:
    """Cut matrices into runs small enough to be whole in memory at once, but one for each worker where it can be."""
    first, held = 0, 0
    for number, shape in enumerate(shapes):
        size = math.prod(shape) * itemsize
        if number > first and (number - first >= world or held + size > _GATHER_BYTES):
            yield first, number
            first, held = number, 0
        held += size
    yield first, len(shapes)


def _each(collective: Callable[..., Any], matrices: Mapping[int, Tensor], world: int, group: Any) -> None:
    """Reduce each matrix to its owner, or broadcast it from there, all in flight together."""
    works = []
    for number, matrix in matrices.items():
        owner = dist.get_global_rank(group, number % world) if group is not None else number % world
        works.append(collective(matrix, owner, group=group, async_op=True))
    for work in works:
        work.wait()


def _sum(tensor: Tensor, group: Any) -> None:
    if dist.get_world_size(group) > 1:
        dist.all_reduce(tensor, group=group)


def _shape(parameter: nn.Parameter) -> Sequence[int]:
    """Tell the whole shape of a parameter, also where ZeRO-3 has taken its data away."""
    return getattr(parameter, "ds_shape", parameter.shape)
