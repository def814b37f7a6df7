"""Using a tokenizer: texts to ids and back, conversations to ChatML."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from qwen_core.errors import ArtifactError
from qwen_core.tokenizer.train import ENDOFTEXT, IM_END, IM_START

_SLICE_CHARS = 2_000_000


class ChatTokenizer:
    """A tokenizer with ChatML's control tokens: the project's byte-level BPE, or an imported one.

    Texts are data: a control token's name inside one is spelt out, never obeyed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        # Files made by others may carry both: documents would be cut, or padded to their batch.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._tree: dict[str, Any] = json.loads(tokenizer.to_str())
        # The largest id and not the number of entries: there are vocabularies with gaps.
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
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

    def encode_documents(
        self, texts: Sequence[str | None], separator: int | None = None
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Encode documents into one array, a slice of them at a time, so that no text lies in memory as Python ints.

        Args:
            texts: Any texts; a missing one is empty.
            separator: Put behind each document, where it is given.

        Returns:
            All ids, one document behind another, [T]; tokens of each document, separator included, [N].
        """
        closing = [] if separator is None else [separator]
        parts, lengths = [np.zeros(0, np.uint32)], []
        for some in _slices(texts):
            encoded = self.encode_batch(some)
            lengths += [len(ids) + len(closing) for ids in encoded]
            count = sum(lengths[-len(encoded) :])
            tokens = itertools.chain.from_iterable(itertools.chain(ids, closing) for ids in encoded)
            parts.append(np.fromiter(tokens, dtype=np.uint32, count=count))
        return np.concatenate(parts), np.asarray(lengths, dtype=np.int64)

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
            [V]. A tokenizer that puts a blank before the text, as SentencePiece's do, counts that blank too.
        """
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        is_byte_level = "ByteLevel" in json.dumps([self._tree["pre_tokenizer"], self._tree["decoder"]])
        for token, number in self._tokenizer.get_vocab(with_added_tokens=False).items():
            # the byte-level alphabet has one character for each byte
            sizes[number] = len(token) if is_byte_level else _piece_bytes(token)
        for added in self._tree["added_tokens"]:
            sizes[added["id"]] = 0 if added["special"] else len(added["content"].encode())
        return sizes

    @property
    def unknown_id(self) -> int | None:
        """The token for what the vocabulary cannot spell; a byte-level one has none."""
        token, number = self._tree["model"].get("unk_token"), self._tree["model"].get("unk_id")
        return self._tokenizer.token_to_id(token) if token else number


def _piece_bytes(piece: str) -> int:
    """Count the bytes of a SentencePiece entry: its sign for a blank is one byte, as is a byte's own entry."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return 1
    return len(piece.replace("\u2581", " ").encode())


def _slices(texts: Sequence[str | None]) -> Iterator[list[str]]:
    """Cut a column of texts into lists of about so many characters."""
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text or "")
        size += len(some[-1])
        if size >= _SLICE_CHARS:
            yield some
            some, size = [], 0
    if some:
        yield some


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
