"""Using a tokenizer: texts to ids and back, conversations to ChatML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from qwen_core.errors import ArtifactError
from qwen_core.tokenizer.train import ENDOFTEXT, IM_END, IM_START


class ChatTokenizer:
    """A byte-level BPE with ChatML's control tokens.

    Texts are data: a control token's name inside one is spelt out, never obeyed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
        ids = [tokenizer.token_to_id(token) for token in (ENDOFTEXT, IM_START, IM_END)]
        if None in ids:
            raise ArtifactError("the tokenizer lacks ChatML's control tokens <|endoftext|>, <|im_start|>, <|im_end|>")
        self.endoftext_id, self.im_start_id, self.im_end_id = ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts, in parallel.

        Args:
            texts: Any texts.

        Returns:
            Their ids.
        """
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_from(self, text: str, start: int) -> tuple[list[int], list[bool]]:
        """Encode a text and tell which tokens lie behind a position.

        Args:
            text: Any text.
            start: Characters of `text` before the part of interest.

        Returns:
            Ids, and for each whether it reaches into the part from `start` on.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, [end > start for _, end in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids, control tokens included; bytes that are no UTF-8 become replacement characters.

        Args:
            ids: Tokens.

        Returns:
            The text.
        """
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Count the UTF-8 bytes that each token stands for; a control token stands for none.

        Returns:
            [V].
        """
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        for token, number in self._tokenizer.get_vocab(with_added_tokens=False).items():
            sizes[number] = len(token)  # the byte-level alphabet has one character for each byte
        return sizes


def load_tokenizer(folder: str | Path) -> ChatTokenizer:
    """Open a tokenizer.

    Args:
        folder: With `tokenizer.json`.

    Returns:
        The tokenizer.

    Raises:
        ArtifactError: There is none, or it has no ChatML tokens.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise ArtifactError(f"no tokenizer.json in {folder}")
    return ChatTokenizer(Tokenizer.from_file(str(path)))


def render_chat(
    messages: Sequence[dict[str, str]], tokenizer: ChatTokenizer, add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """Render a conversation as ChatML, to the same ids as the chat template.

    Args:
        messages: `role` and `content` each.
        tokenizer: The tokenizer.
        add_generation_prompt: Whether to open the assistant's next turn.

    Returns:
        Ids, and for each whether the assistant wrote it: its content and the `<|im_end|>` behind it.
    """
    ids: list[int] = []
    written: list[bool] = []
    (newline,) = tokenizer.encode_batch(["\n"])
    for message in messages:
        is_answer = message["role"] == "assistant"
        opening = message["role"] + "\n"
        part, is_content = tokenizer.encode_from(opening + message["content"], len(opening))
        ids += [tokenizer.im_start_id, *part, tokenizer.im_end_id, *newline]
        written += [False, *(is_answer and inside for inside in is_content), is_answer, *[False] * len(newline)]
    if add_generation_prompt:
        (opening_ids,) = tokenizer.encode_batch(["assistant\n"])
        ids += [tokenizer.im_start_id, *opening_ids]
        written += [False] * (1 + len(opening_ids))
    return ids, written
