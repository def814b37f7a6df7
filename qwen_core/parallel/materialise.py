"""Weights for a model that was built on the meta device, one parameter at a time.

Under ZeRO-3 each is cut up and spread as soon as it is there, so that no worker ever holds more than one whole
parameter beside its own shards: a model of 72 billion numbers starts on machines that could not hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from qwen_core.parallel.expert import share_of
from qwen_core.parallel.layout import Source


def materialise(model: nn.Module, source: Source, dtype: torch.dtype, config: dict[str, Any] | None) -> None:
    """Give a model on the meta device its weights, in place.

    Args:
        model: Its parameters are on the meta device; ties between them stay.
        source: Gives each whole parameter by name, the same on each worker.
        dtype: Of the weights.
        config: DeepSpeed's configuration of stage 3, or `None` to leave the parameters whole.
    """
    spread = _spreader(config, dtype) if config is not None else None
    made: dict[int, nn.Parameter] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) not in made:
            values = share_of(parameter, source(name)).to(dtype, copy=True)
            made[id(parameter)] = nn.Parameter(values, requires_grad=parameter.requires_grad)
            made[id(parameter)].__dict__.update(parameter.__dict__)  # marks, such as those of experts shared out
            if spread is not None:
                spread(made[id(parameter)])
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, made[id(parameter)])


def _spreader(config: dict[str, Any], dtype: torch.dtype) -> Callable[[nn.Parameter], None]:
    """Return what cuts a parameter up for ZeRO-3."""
    import deepspeed

    deepspeed.init_distributed(verbose=False)  # its own face of torch's process group
    init = deepspeed.zero.Init(config_dict_or_path=config, dtype=dtype)
    return lambda parameter: init._convert_to_zero_parameters([parameter])
