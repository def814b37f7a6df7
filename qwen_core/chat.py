"""Talking to a trained model: tokenizer and model wired together.

messages ─▶ ids by the chat template ─▶ generate ─▶ ids up to the end of the turn ─▶ text
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_core.errors import ArtifactError, InputError
from qwen_core.model import GREEDY, Sampling, load_pretrained, stream
from qwen_core.tokenizer import load_tokenizer, render_chat

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""

_UNFINISHED = "\ufffd"


class ChatModel:
    """A model folder that answers."""

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        """Load a Hugging Face folder.

        Args:
            folder: With `config.json`, safetensors and tokenizer files.
            device: Where it computes.

        Raises:
            ArtifactError: It is no such folder.
        """
        place = Path(folder)
        if not (place / "config.json").is_file() or not (place / "tokenizer.json").is_file():
            raise ArtifactError(f"{place} holds no model: config.json and tokenizer.json are expected in it")
        self.model = load_pretrained(place, device=device).eval()
        self.tokenizer = load_tokenizer(place)
        ends = (self.tokenizer.eos_id, self.tokenizer.im_end_id, self.tokenizer.endoftext_id)
        self.stop_ids = tuple(dict.fromkeys(token for token in ends if token is not None))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Render a conversation whose next turn is the assistant's.

        Args:
            messages: Ending with the user's.

        Returns:
            Ids.
        """
        return render_chat(list(messages), self.tokenizer, add_generation_prompt=True)[0]

    def reply(self, messages: Sequence[Message], max_new_tokens: int = 128, sampling: Sampling = GREEDY) -> str:
        """Answer a conversation; see `answer`.

        Args:
            messages: Ending with the user's.
            max_new_tokens: Upper bound of the reply's length.
            sampling: How each token is chosen.

        Returns:
            The reply's text.
        """
        return "".join(self.answer(messages, max_new_tokens, sampling))

    def answer(self, messages: Sequence[Message], max_new_tokens: int, sampling: Sampling = GREEDY) -> Continuation:
        """Answer a conversation piece by piece; the oldest tokens of one that is too long are forgotten.

        Args:
            messages: Ending with the user's.
            max_new_tokens: Upper bound of the reply's length.
            sampling: How each token is chosen.

        Returns:
            To be iterated once.

        Raises:
            InputError: The model has no more than `max_new_tokens` positions.
        """
        room = max(1, self.model.config.max_position_embeddings - max_new_tokens)
        return self.pieces(self.prompt(messages)[-room:], max_new_tokens, sampling)

    def pieces(self, ids: Sequence[int], max_new_tokens: int, sampling: Sampling = GREEDY) -> Continuation:
        """Continue a prompt and give the text piece by piece, as it is made.

        Args:
            ids: The prompt.
            max_new_tokens: Upper bound of the continuation.
            sampling: How each token is chosen.

        Returns:
            To be iterated once.

        Raises:
            InputError: Prompt and continuation do not fit the model's positions.
        """
        longest = self.model.config.max_position_embeddings
        if len(ids) + max_new_tokens > longest:
            raise InputError(
                f"the prompt has {len(ids)} tokens and up to {max_new_tokens} more are asked for, together more than "
                f"the model's {longest} positions; shorten the conversation, or ask for fewer tokens"
            )
        return Continuation(self, ids, max_new_tokens, sampling)


class Continuation:
    """A text that is being made: iterate over its pieces, then look at what came of it."""

    def __init__(self, chat: ChatModel, ids: Sequence[int], max_new_tokens: int, sampling: Sampling) -> None:
        self._chat, self._ids = chat, ids
        self.max_new_tokens, self._sampling = max_new_tokens, sampling
        self.num_tokens = 0
        """Tokens made so far, the stop token included."""
        self.is_stopped = False
        """Whether the model ended by itself, and not by the bound."""

    def __iter__(self) -> Iterator[str]:
        """Give the text as it grows; a character whose bytes are not complete yet waits."""
        chat = self._chat
        kept: list[int] = []
        told = 0
        for token in stream(chat.model, self._ids, self.max_new_tokens, self._sampling, chat.stop_ids):
            self.num_tokens += 1
            if token in chat.stop_ids:
                self.is_stopped = True
                break
            kept.append(token)
            text = chat.tokenizer.decode(kept)
            if not text.endswith(_UNFINISHED) and len(text) > told:
                yield text[told:]
                # Only what has not been told stays, or a long reply would be decoded anew with each token.
                kept, told = [token], len(chat.tokenizer.decode([token]))
        rest = chat.tokenizer.decode(kept)[told:] if kept else ""
        if rest:
            yield rest
