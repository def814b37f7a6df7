"""Generation, one token at a time with a key/value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qwen_core.model.decoder import CausalLM, KeyValueCache, positions_and_mask


@torch.inference_mode()
def generate(
    model: CausalLM,
    ids: Sequence[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
) -> list[int]:
    """Continue a sequence.

    Args:
        model: In evaluation mode.
        ids: At least one token.
        max_new_tokens: Upper bound of the continuation.
        temperature: 0 takes the most likely token; above, samples.
        stop_ids: The continuation ends with the first of these, which is included.
        seed: Of the sampling.

    Returns:
        The new tokens.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    cache = KeyValueCache()
    step = torch.tensor([list(ids)], device=device)
    new: list[int] = []
    while len(new) < max_new_tokens:
        hidden = model.model(step, *positions_and_mask(step, None, cache), cache)
        logits = model.lm_head(hidden[0, -1]).float()  # [V]: only the last token's, a prompt's logits are large
        if temperature > 0:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        else:
            token = int(logits.argmax())
        new.append(token)
        if token in stop_ids:
            break
        step = torch.tensor([[token]], device=device)
    return new
