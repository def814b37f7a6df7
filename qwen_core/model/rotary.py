"""Rotary position embeddings (Su et al., 2021, arXiv 2104.09864), and YaRN's stretching of them.

Legend: B batch, S sequence, H heads, D head dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qwen_core.model.config import ModelConfig, RopeScaling, yarn_attention_factor

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, each [B, S, 1, D]."""


def rotary_angles(positions: Tensor, config: ModelConfig, dtype: torch.dtype) -> Rotary:
    """Compute cosines and sines.

    Angles are made in fp32 whatever the weights are: in bf16, positions above 256 would collapse.

    Args:
        positions: [B, S], int64.
        config: Of the model.
        dtype: Of the result: the hidden states'.

    Returns:
        Cosines and sines, each [B, S, 1, D].
    """
    frequencies, factor = inverse_frequencies(config)
    angles = positions[:, :, None, None].float() * frequencies.to(positions.device)  # [B, S, 1, D/2]
    angles = torch.cat((angles, angles), -1)
    return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)


def inverse_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Give the angle that each pair turns by from one position to the next.

    Args:
        config: Of the model.

    Returns:
        [D/2], fp32, radians; and the factor of cosines and sines, 1 without YaRN.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if config.rope_scaling is None:
        return frequencies, 1.0
    return _yarn(frequencies, config, config.rope_scaling), yarn_attention_factor(config.rope_scaling)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn the pairs (i, i + D/2) of [B, S, H, D] by their angles, as Hugging Face lays them out."""
    first, second = x.chunk(2, -1)
    return x * rotary[0] + torch.cat((-second, first), -1) * rotary[1]


def _yarn(frequencies: Tensor, config: ModelConfig, scaling: RopeScaling) -> Tensor:
    """Interpolate the slow pairs, keep the fast ones ("NTK by parts", arXiv 2309.00071, section 3.2).

    As in transformers and the authors' code, and unlike the paper's formula, the ramp is linear over the pair's index,
    between the floor of the last that stays and the ceiling of the first that is interpolated in full.
    """
    low = math.floor(_pair_that_turns(scaling.beta_fast, config, scaling))
    high = math.ceil(_pair_that_turns(scaling.beta_slow, config, scaling))
    low, high = max(low, 0), min(high, config.head_dim - 1)
    index = torch.arange(config.head_dim // 2, dtype=torch.float32)
    interpolated = ((index - low) / (high - low or 0.001)).clamp(0, 1)  # [D/2]
    return frequencies / scaling.factor * interpolated + frequencies * (1 - interpolated)


def _pair_that_turns(times: float, config: ModelConfig, scaling: RopeScaling) -> float:
    """Find the index of the pair that turns so often over the trained length."""
    wavelength = scaling.original_max_position_embeddings / (times * 2 * math.pi)
    return config.head_dim * math.log(wavelength) / (2 * math.log(config.rope_theta))
