"""Generation, one token at a time with a key/value cache: of one prompt, of one as a stream, of many at once.

Legend: B prompts, S longest prompt, T keys, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_core.errors import InputError
from qwen_core.model.cache import KeyValueCache
from qwen_core.model.decoder import CausalLM, Shared
from qwen_core.model.documents import Structure
from qwen_core.model.rotary import rotary_angles


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
        max_new_tokens: Upper bound of the continuation, which also ends where the model's positions do.
        sampling: How each token is chosen.
        stop_ids: The continuation ends with the first of these, which is included.

    Returns:
        The new tokens.

    Raises:
        InputError: There is no token to continue, one beyond the vocabulary, or more than the model has positions.
    """
    return list(stream(model, ids, max_new_tokens, sampling, stop_ids))


def stream(
    model: CausalLM,
    ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop_ids: Sequence[int] = (),
) -> Iterator[int]:
    """Continue a sequence, giving each token as soon as it is made.

    Args:
        model: In evaluation mode.
        ids: At least one token.
        max_new_tokens: Upper bound of the continuation, which also ends where the model's positions do.
        sampling: How each token is chosen.
        stop_ids: The continuation ends with the first of these, which is included.

    Yields:
        The new tokens.

    Raises:
        InputError: There is no token to continue, one beyond the vocabulary, or more than the model has positions.
    """
    _check(model, [ids])
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(sampling.seed)
    cache = KeyValueCache()
    step = torch.tensor([list(ids)], device=device)
    seen = list(ids)
    for _ in range(_room(model, ids, max_new_tokens)):
        with torch.inference_mode():  # inside the loop: a generator must not leave it on for its caller
            hidden = model.model(step, cache=cache)
            logits = model.lm_head(hidden[0, -1]).float()  # [V]: only the last token's, a prompt's logits are large
            token = _choose(logits, seen, sampling, generator)
        seen.append(token)
        yield token
        if token in stop_ids:
            return
        step = torch.tensor([[token]], device=device)


@torch.inference_mode()
def generate_batch(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop_ids: Sequence[int] = (),
) -> list[list[int]]:
    """Continue several sequences at once; each as if it were alone, except for rounding.

    Prompts are padded on the left, so that all of them end in the same column; a mask hides the padding. A sequence
    that has ended leaves the batch.

    Args:
        model: In evaluation mode.
        prompts: Each of at least one token.
        max_new_tokens: Upper bound of each continuation, which also ends where the model's positions do.
        sampling: How each token is chosen; prompt number i samples with seed + i.
        stop_ids: A continuation ends with the first of these, which is included.

    Returns:
        The new tokens of each prompt.

    Raises:
        InputError: A prompt is empty, has a token beyond the vocabulary, or more tokens than the model has positions.
    """
    _check(model, prompts)
    rooms = [_room(model, prompt, max_new_tokens) for prompt in prompts]
    if max_new_tokens < 1:
        return [[] for _ in prompts]
    device = next(model.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    step = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    generators = [torch.Generator(device).manual_seed(sampling.seed + number) for number in range(len(prompts))]
    cache, active = KeyValueCache(), list(range(len(prompts)))
    new: list[list[int]] = [[] for _ in prompts]
    while True:
        shared = _padded_inputs(model, step, padding, cache.length)
        logits = model.lm_head(model.model(step, cache=cache, shared=shared)[:, -1]).float()  # [B, V]
        for row, number in enumerate(active):
            new[number].append(_choose(logits[row], [*prompts[number], *new[number]], sampling, generators[number]))
        goes_on = [row for row, n in enumerate(active) if new[n][-1] not in stop_ids and len(new[n]) < rooms[n]]
        if not goes_on:
            return new
        if len(goes_on) < len(active):
            rows = torch.tensor(goes_on, device=device)
            cache.keep(rows)
            padding, active = padding[rows], [active[row] for row in goes_on]
        step = torch.tensor([[new[number][-1]] for number in active], device=device)


def _padded_inputs(model: CausalLM, step: Tensor, padding: Tensor, start: int) -> Shared:
    """Make positions that begin after each row's padding, and a mask that hides it.

    A padding token sees itself, for a row of nothing would be NaN.
    """
    query = torch.arange(start, start + step.shape[1], device=step.device)
    key = torch.arange(start + step.shape[1], device=step.device)
    positions = (query[None] - padding[:, None]).clamp(min=0)  # [B, S]
    is_causal = key[None, :] <= query[:, None]  # [S, T]
    is_token = key[None, None, :] >= padding[:, None, None]  # [B, 1, T]
    is_itself = key[None, :] == query[:, None]
    mask = ((is_causal & is_token) | is_itself)[:, None]  # [B, 1, S, T]
    rotary = rotary_angles(positions, model.config, model.model.embed_tokens.weight.dtype)
    return Shared(rotary, Structure(mask=mask))


def _check(model: CausalLM, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse prompts that cannot be continued."""
    for prompt in prompts:
        if not len(prompt):
            raise InputError("a prompt is empty: there is no token to continue from; give at least one")
        if max(prompt) >= model.config.vocab_size or min(prompt) < 0:
            raise InputError(
                f"a prompt has token {max(prompt) if min(prompt) >= 0 else min(prompt)}, the model's vocabulary is "
                f"{model.config.vocab_size}; use the tokenizer that lies beside the model"
            )
        if len(prompt) >= model.config.max_position_embeddings:
            raise InputError(
                f"a prompt has {len(prompt)} tokens, the model's max_position_embeddings is "
                f"{model.config.max_position_embeddings}, so there is no room for an answer; shorten the prompt"
            )


def _room(model: CausalLM, ids: Sequence[int], max_new_tokens: int) -> int:
    """Bound the new tokens by the positions that are left."""
    return min(max_new_tokens, model.config.max_position_embeddings - len(ids))


def _choose(logits: Tensor, seen: Sequence[int], sampling: Sampling, generator: torch.Generator) -> int:
    """Choose a token from its logits, [V]."""
    if sampling.repetition_penalty != 1.0:
        before = torch.tensor(sorted(set(seen)), device=logits.device)
        held = logits[before]
        logits[before] = torch.where(held > 0, held / sampling.repetition_penalty, held * sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    values, tokens = (logits / sampling.temperature).topk(min(sampling.top_k or len(logits), len(logits)))  # descending
    chances = values.softmax(-1)
    chances[chances.cumsum(-1) - chances >= sampling.top_p] = 0  # the first always stays
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])
