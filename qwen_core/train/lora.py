"""Low-rank adapters (LoRA, Hu et al., 2021, arXiv 2106.09685): the base is frozen, two thin matrices beside it learn.

    y = W x + scaling * B A dropout(x)        A [rank, in], B [out, rank]; scaling = alpha / rank

B begins at zero, so training begins at the base model. With rsLoRA (Kalajdzievski, 2023, arXiv 2312.03732) scaling is
alpha / sqrt(rank), which keeps the size of the update as the rank grows. A begins uniform in 1 / sqrt(in), as in the
authors' code and in PEFT, not normal as in the paper.

    model ─▶ add_adapters ─▶ engine: only adapters in the optimiser ─▶ parameters() ─▶ merged weights, adapter/ (PEFT)

Frozen weights are spread under ZeRO-3 like all others. Dropout draws from torch's generator, which the loop sets at
each step, so a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from safetensors.torch import save_file
from torch import Tensor, nn

from qwen_core.errors import RecipeError
from qwen_core.model.loss import LMHead


@dataclass(frozen=True)
class Adapters:
    """Where adapters sit and how strong they are.

    Attributes:
        rank: Columns of A's transpose and of B, from 1.
        alpha: Strength: the update is scaled by `alpha / rank`.
        target_modules: Last parts of the names of linear layers that get one, such as `q_proj`.
        dropout: Share of a layer's inputs that its adapter does not see in training, 0 to 1.
        use_rslora: Scale by `alpha / sqrt(rank)` instead.
    """

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    dropout: float = 0.0
    use_rslora: bool = False

    @property
    def scaling(self) -> float:
        """Factor on B A."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


class LoraLinear(nn.Module):
    """A frozen linear layer with an adapter; its weight and bias keep their names."""

    def __init__(self, base: nn.Linear, adapters: Adapters) -> None:
        """Take a layer's weights over.

        Args:
            base: The layer.
            adapters: Rank, strength and dropout.
        """
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scaling, self.dropout = adapters.scaling, adapters.dropout
        device, dtype = base.weight.device, base.weight.dtype
        self.lora_A = nn.Parameter(torch.empty(adapters.rank, base.in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, adapters.rank, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        seen = F.dropout(x, self.dropout, self.training) if self.dropout else x
        return F.linear(x, self.weight, self.bias) + self.scaling * F.linear(F.linear(seen, self.lora_A), self.lora_B)


def add_adapters(model: nn.Module, adapters: Adapters, seed: int) -> None:
    """Freeze a model and give it adapters, in place.

    Args:
        model: On any device, also meta; there a source gives the adapters' values too.
        adapters: Which and where.
        seed: Decides A.

    Raises:
        RecipeError: A name of `target_modules` is that of no linear layer, or of the head.
    """
    # The head computes losses too, and may be the embedding: it gets no adapter
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, LMHead)
    }
    have = {name.rpartition(".")[2] for name in linear}
    unknown = sorted(set(adapters.target_modules) - have)
    if unknown:
        raise RecipeError(
            f"lora.target_modules names {', '.join(unknown)}, which no linear layer of the model is called; there are "
            f"{', '.join(sorted(have))}"
        )
    model.requires_grad_(False)
    for name, module in linear.items():
        path, _, last = name.rpartition(".")
        if last in adapters.target_modules:
            adapted = LoraLinear(module, adapters)
            if not adapted.lora_A.is_meta:
                with torch.no_grad():
                    adapted.lora_A.copy_(first_value(f"{name}.lora_A", module.weight.shape, adapters.rank, seed))
            setattr(model.get_submodule(path), last, adapted)
    for part in model.modules():
        if isinstance(part, nn.Embedding):
            part.register_forward_hook(_begin_graph)


def first_value(name: str, shape: Sequence[int], rank: int, seed: int) -> Tensor:
    """Give what an adapter's matrix begins with, from the seed and its own name alone: the same on each worker.

    Args:
        name: Of `lora_A` or `lora_B`, in the full model.
        shape: Of the weight that it sits beside, [out, in].
        rank: Of the adapter.
        seed: Decides A.

    Returns:
        A [rank, in], uniform; or B [out, rank], zeros.
    """
    if name.endswith("lora_B"):
        return torch.zeros(shape[0], rank)
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    bound = 1 / math.sqrt(shape[1])
    return (torch.rand(rank, shape[1], generator=generator) * 2 - 1) * bound


def merged(
    named: Iterable[tuple[str, Tensor]], adapters: Adapters, kept: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Add adapters to the weights that they sit beside, one layer at a time.

    Args:
        named: Names and whole tensors of a model with adapters, those of one layer together.
        adapters: Their strength.
        kept: Gets the adapters' own tensors by name.

    Yields:
        Names and tensors of the base model, as if it had been trained itself; dtypes stay.
    """
    layer = ""
    held: dict[str, Tensor] = {}
    for name, tensor in named:
        path, _, last = name.rpartition(".")
        if path != layer:
            yield from _merge_layer(layer, held, adapters, kept)
            layer, held = path, {}
        held[last] = tensor
    yield from _merge_layer(layer, held, adapters, kept)


def save_adapter(kept: dict[str, Tensor], adapters: Adapters, folder: str | Path, base: str = "") -> None:
    """Write adapters as PEFT reads them: `adapter_config.json`, `adapter_model.safetensors`.

    Args:
        kept: The adapters' tensors, as `merged` collects them.
        adapters: Their strength.
        folder: Made where it is missing.
        base: Name or folder of the base model, for a reader.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tensors = {f"base_model.model.{name}.weight": tensor.detach().cpu().contiguous() for name, tensor in kept.items()}
    save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": adapters.dropout,
        "use_rslora": adapters.use_rslora,
        "target_modules": sorted(adapters.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (place / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _begin_graph(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    """Let the graph begin at the frozen embedding.

    Otherwise the first layer's inputs need no gradient; ZeRO-3, which gathers a small layer as one, then takes its
    weights away before its backward pass is done.
    """
    if torch.is_grad_enabled():
        output.requires_grad_(True)


def _merge_layer(
    layer: str, held: dict[str, Tensor], adapters: Adapters, kept: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Give one module's tensors, its weight with the adapter added."""
    a, b = held.pop("lora_A", None), held.pop("lora_B", None)
    if a is not None and b is not None:
        kept |= {f"{layer}.lora_A": a, f"{layer}.lora_B": b}
        weight = held["weight"]
        held["weight"] = (weight.float() + adapters.scaling * (b.float() @ a.float())).to(weight.dtype)
    for last, tensor in held.items():
        yield f"{layer}.{last}" if layer else last, tensor
