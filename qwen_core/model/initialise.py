"""Fresh weights: a function of (seed, method, parameter's name, shape) alone.

Each parameter has a random stream of its own, seeded by its name; a stacked expert one of its own, by its number. So a
pipeline stage, a worker with some of the experts, or a loop that fills one parameter of a huge model at a time all draw
the values that one process would.

Methods, with fan_in and fan_out the columns and rows of a matrix (of one expert's, where they are stacked):

    normal   std initializer_range everywhere, and 1/sqrt(2 N) of it for the N layers' two outputs into the residual
             stream, o_proj and down_proj, which keeps that stream's variance (GPT-2, Radford et al., 2019, section 2.3)
    xavier   variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)
    kaiming  variance 2 / fan_in before the activation (gate_proj), 1 / fan_in elsewhere (He et al., 2015,
             arXiv 1502.01852)
    mup      maximal update parametrisation (Yang et al., 2022, arXiv 2203.03466, table 3): with m = hidden_size /
             base_width, matrices inside the layers have variance initializer_range^2 / m, the head and the routers,
             whose rows do not grow with width, initializer_range^2 / m^2; residual outputs are scaled as in `normal`.
             Learning rates must follow: `mup_learning_rate_scales`. Two departures: attention keeps 1/sqrt(head_dim),
             for Qwen widens by adding heads of one size; a tied head is refused, for it cannot be scaled both as an
             input and as an output.

Norms are ones, biases zeros. Embeddings have std initializer_range in all methods: a lookup has no fan-in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qwen_core.errors import RecipeError
from qwen_core.model.config import ModelConfig
from qwen_core.model.decoder import CausalLM

METHODS = ("normal", "xavier", "kaiming", "mup")

_RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight", "experts.down_proj")
_BEFORE_ACTIVATION = ("gate_proj.weight", "experts.gate_up_proj")
_FIXED_ROWS = ("lm_head.weight", "mlp.gate.weight", "shared_expert_gate.weight")


def initialise(model: nn.Module, seed: int, method: str = "normal", base_width: int = 256) -> None:
    """Fill the weights in place.

    Args:
        model: A `CausalLM` on any device, not meta.
        seed: Decides every weight.
        method: One of `METHODS`.
        base_width: `hidden_size` of the small model that muP's learning rate was found with.

    Raises:
        RecipeError: No such method, or muP with a tied head.
    """
    config: ModelConfig = model.config  # type: ignore[assignment]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = initial_value(name, parameter.shape, config, method, seed, base_width=base_width)
            parameter.copy_(value)


def initial_value(
    name: str,
    shape: Sequence[int],
    config: ModelConfig,
    method: str,
    seed: int,
    *,
    base_width: int = 256,
    first_expert: int = 0,
) -> Tensor:
    """Draw one parameter, the same whatever else is drawn.

    Args:
        name: In the full model, in Hugging Face's words.
        shape: Of the whole parameter; of stacked experts, as many as are wanted.
        config: Of the model.
        method: One of `METHODS`.
        seed: Decides the values, with the name.
        base_width: See `initialise`.
        first_expert: Number of the first of the stacked experts that are wanted.

    Returns:
        fp32, on the CPU.

    Raises:
        RecipeError: No such method, or muP with a tied head.
    """
    if method not in METHODS:
        raise RecipeError(f"initialisation is '{method}'; choose one of {', '.join(METHODS)}")
    if method == "mup" and config.tie_word_embeddings:
        raise RecipeError(
            "muP scales the head otherwise than the embedding, so both cannot be one matrix: "
            "set tie_word_embeddings to false, or choose another initialisation"
        )
    if len(shape) == 1:
        return torch.zeros(*shape) if name.endswith("bias") else torch.ones(*shape)
    std = _std(name, shape, config, method, base_width)
    if len(shape) == 2:
        return torch.randn(*shape, generator=_stream(seed, name)) * std
    experts = range(first_expert, first_expert + shape[0])
    drawn = [torch.randn(*shape[1:], generator=_stream(seed, f"{name}.{expert}")) for expert in experts]
    return torch.stack(drawn) * std


def mup_learning_rate_scales(config: ModelConfig, base_width: int) -> dict[str, float]:
    """Say by how much Adam's learning rate of each parameter is multiplied under muP (arXiv 2203.03466, table 3).

    Args:
        config: Of the model.
        base_width: `hidden_size` of the model that the learning rate was found with.

    Returns:
        By parameter name: base_width / hidden_size for matrices whose columns grow with width, 1 for the embedding,
        norms and biases.
    """
    with torch.device("meta"):
        model = CausalLM(config)
    ratio = base_width / config.hidden_size
    return {
        name: ratio if parameter.dim() > 1 and "embed_tokens" not in name else 1.0
        for name, parameter in model.named_parameters()
    }


def _std(name: str, shape: Sequence[int], config: ModelConfig, method: str, base_width: int) -> float:
    """Choose the standard deviation of a matrix."""
    fan_out, fan_in = shape[-2:]
    if "gate_up_proj" in name:
        fan_out //= 2  # two matrices in one
    if "embed_tokens" in name:
        return config.initializer_range
    if method == "xavier":
        return float((2 / (fan_in + fan_out)) ** 0.5)
    if method == "kaiming":
        return float(((2 if name.endswith(_BEFORE_ACTIVATION) else 1) / fan_in) ** 0.5)
    std = config.initializer_range
    if method == "mup":
        width = config.hidden_size / base_width
        std /= width if name.endswith(_FIXED_ROWS) else width**0.5
    return std / (2 * config.num_hidden_layers) ** 0.5 if name.endswith(_RESIDUAL_OUTPUTS) else std


def _stream(seed: int, name: str) -> torch.Generator:
    """Seed a generator by a name; on the CPU, so that the device changes nothing."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
