"""Generation, one token at a time with a key/value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_core.model.decoder import CausalLM, KeyValueCache, positions_and_mask


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, in Hugging Face's words.

    Attributes:
        temperature: 0 takes the most likely token; above, samples.
        top_k: Sample among so many of the most likely tokens; 0 among all.
        top_p: Sample among the fewest tokens that hold this much of the probability (Holtzman et al., 2020).
        repetition_penalty: Above 1, tokens that have occurred lose: a positive logit is divided by it, a negative one
            multiplied (Keskar et al., 2019).
        seed: Of the sampling.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0


GREEDY = Sampling()


@torch.inference_mode()
def generate(
    model: CausalLM,
    ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop_ids: Sequence[int] = (),
) -> list[int]:
    """Continue a sequence.

    Args:
        model: In evaluation mode.
        ids: At least one token.
        max_new_tokens: Upper bound of the continuation.
        sampling: How each token is chosen.
        stop_ids: The continuation ends with the first of these, which is included.

    Returns:
        The new tokens.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(sampling.seed)
    cache = KeyValueCache()
    step = torch.tensor([list(ids)], device=device)
    new: list[int] = []
    while len(new) < max_new_tokens:
        hidden = model.model(step, *positions_and_mask(step, None, cache), cache)
        logits = model.lm_head(hidden[0, -1]).float()  # [V]: only the last token's, a prompt's logits are large
        token = _choose(logits, [*ids, *new], sampling, generator)
        new.append(token)
        if token in stop_ids:
            break
        step = torch.tensor([[token]], device=device)
    return new


def _choose(logits: Tensor, seen: Sequence[int], sampling: Sampling, generator: torch.Generator) -> int:
    """Choose a token from its logits, [V]."""
    if sampling.repetition_penalty != 1.0:
        before = torch.tensor(sorted(set(seen)), device=logits.device)
        held = logits[before]
        logits[before] = torch.where(held > 0, held / sampling.repetition_penalty, held * sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    values, tokens = (logits / sampling.temperature).topk(sampling.top_k or len(logits))  # descending
    chances = values.softmax(-1)
    chances[chances.cumsum(-1) - chances >= sampling.top_p] = 0  # the first always stays
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])
