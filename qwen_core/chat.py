"""Talking to a trained model: tokenizer and model wired together.

messages ─▶ ChatML ids ─▶ generate ─▶ ids up to <|im_end|> ─▶ text
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen_core.errors import ArtifactError
from qwen_core.model import GREEDY, Sampling, generate, load_pretrained
from qwen_core.tokenizer import load_tokenizer, render_chat

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""


class ChatModel:
    """A model folder that answers."""

    def __init__(self, folder: str | Path) -> None:
        """Load a Hugging Face folder.

        Args:
            folder: With `config.json`, safetensors and tokenizer files.

        Raises:
            ArtifactError: It is no such folder.
        """
        place = Path(folder)
        if not (place / "config.json").is_file() or not (place / "tokenizer.json").is_file():
            raise ArtifactError(f"{place} holds no model: config.json and tokenizer.json are expected in it")
        self.model = load_pretrained(place).eval()
        self.tokenizer = load_tokenizer(place)

    def reply(self, messages: Sequence[Message], max_new_tokens: int = 128, sampling: Sampling = GREEDY) -> str:
        """Answer a conversation.

        Args:
            messages: Ending with the user's.
            max_new_tokens: Upper bound of the reply's length.
            sampling: How each token is chosen.

        Returns:
            The reply's text.
        """
        ids, _ = render_chat(list(messages), self.tokenizer, add_generation_prompt=True)
        room = self.model.config.max_position_embeddings - max_new_tokens
        stop = (self.tokenizer.im_end_id, self.tokenizer.endoftext_id)
        new = generate(self.model, ids[-room:], max_new_tokens, sampling, stop)
        return self.tokenizer.decode([token for token in new if token not in stop])
