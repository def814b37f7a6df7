"""Using a tokenizer: texts to ids and back, conversations by its chat template to ids and what the assistant wrote."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from qwen_core.errors import ArtifactError
from qwen_core.tokenizer.templates import SPELT, ChatTemplate, Message, Rendered, TemplateError, chat_template
from qwen_core.tokenizer.train import ENDOFTEXT, IM_END, IM_START

_SLICE_CHARS = 2_000_000

Spans = Sequence[tuple[int, int]]
Encoded = tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]


class ChatTokenizer:
    """A tokenizer with ChatML's control tokens and a chat template: the project's byte-level BPE, or an imported one.

    Texts are data: a control token's name inside one is spelt out, never obeyed.
    """

    def __init__(self, tokenizer: Tokenizer, template: str | None = None, end_token: str | None = None) -> None:
        """Take a tokenizer over.

        Args:
            tokenizer: Its file's content.
            template: Jinja text of its chat template; ChatML where there is none.
            end_token: Ends a turn and a generation; `<|im_end|>` where it is not told or not in the vocabulary.

        Raises:
            ArtifactError: It has no ChatML tokens, or the template is broken.
        """
        tokenizer.encode_special_tokens = True
        # Files made by others may carry both: documents would be cut, or padded to their batch.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._tree: dict[str, Any] = json.loads(tokenizer.to_str())
        # The largest id and not the number of entries: there are vocabularies with gaps.
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        found = [tokenizer.token_to_id(token) for token in (ENDOFTEXT, IM_START, IM_END)]
        ids = [number for number in found if number is not None]
        if len(ids) < len(found):
            raise ArtifactError("the tokenizer lacks ChatML's control tokens <|endoftext|>, <|im_start|>, <|im_end|>")
        self.endoftext_id, self.im_start_id, self.im_end_id = ids
        self.control_tokens = tuple(token["content"] for token in self._tree["added_tokens"] if token["special"])
        self.has_template = template is not None
        end = end_token if end_token is not None and end_token in self.control_tokens and template else IM_END
        self.eos_id = self._control_id(end)
        try:
            self.template = ChatTemplate(template or chat_template("chatml", (IM_END,))[0], end, self.control_tokens)
        except TemplateError as error:
            raise ArtifactError(str(error)) from error

    @functools.cached_property
    def _obeying(self) -> Tokenizer:
        """The same tokenizer, to which a control token's name is the token."""
        copy = Tokenizer.from_str(self._tokenizer.to_str())
        copy.encode_special_tokens = False
        return copy

    def _control_id(self, token: str) -> int:
        """Look up a control token; each has an id."""
        number = self._tokenizer.token_to_id(token)
        assert number is not None
        return number

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

    def encode_obeying(self, texts: Sequence[str], spans: Sequence[Spans]) -> list[Encoded]:
        """Encode rendered conversations, in which control tokens' names stand for the tokens; in parallel.

        Args:
            texts: Made by a chat template.
            spans: Of each text, the parts of interest in characters.

        Returns:
            Of each text its ids [T], and which of them reach into a span [T].
        """
        encodings = self._obeying.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.asarray(encoding.ids, np.uint32), _mask(encoding, len(text), parts))
            for encoding, text, parts in zip(encodings, texts, spans, strict=True)
        ]

    def encode_spelling(self, text: str, spans: Spans) -> Encoded:
        """Encode a rendered conversation in which some control tokens' names are only spelt.

        Args:
            text: With `SPELT` inside of those names.
            spans: The parts of interest, in characters of `text`.

        Returns:
            Ids [T], and which of them reach into a span [T].
        """
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        for part in re.split(f"({'|'.join(map(re.escape, self.control_tokens))})", text):
            if part in self.control_tokens:
                ids.append(self._control_id(part))
                offsets.append((at, at + len(part)))
            elif part:
                # characters of the part without its marks, by their place in the text
                places = [at + index for index, character in enumerate(part) if character != SPELT]
                encoding = self._tokenizer.encode(part.replace(SPELT, ""), add_special_tokens=False)
                ids += encoding.ids
                offsets += [(places[min(a, len(places) - 1)], places[max(0, b - 1)] + 1) for a, b in encoding.offsets]
            at += len(part)
        return np.asarray(ids, np.uint32), _overlap(offsets, spans)

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

    def tokens(self) -> dict[str, int]:
        """List the vocabulary.

        Returns:
            Ids by token, control tokens included.
        """
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

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
    """Open a tokenizer with its chat template.

    Args:
        folder: With `tokenizer.json`; without a chat template in it, conversations become ChatML.

    Returns:
        The tokenizer.

    Raises:
        ArtifactError: There is none, or it has no ChatML tokens, or its chat template is broken.
    """
    place = Path(folder)
    path = place / "tokenizer.json"
    if not path.is_file():
        raise ArtifactError(f"no tokenizer.json in {folder}")
    text, end = told_template(place)
    return ChatTokenizer(Tokenizer.from_file(str(path)), text, end)


def told_template(place: Path) -> tuple[str | None, str | None]:
    """Read the chat template and the end token that lie with a tokenizer.

    Args:
        place: Its folder.

    Returns:
        The jinja text and the token that ends a turn, `None` where there is none.
    """
    config: dict[str, Any] = {}
    if (place / "tokenizer_config.json").is_file():
        config = json.loads((place / "tokenizer_config.json").read_text(encoding="utf-8"))
    text, end = config.get("chat_template"), config.get("eos_token")
    if isinstance(text, list):  # several by name, as some models bring
        text = {entry["name"]: entry["template"] for entry in text}.get("default")
    if (place / "chat_template.jinja").is_file():
        text = (place / "chat_template.jinja").read_text(encoding="utf-8")
    if text and IM_END in text:  # Qwen's base models end documents with their eos_token, turns with this
        end = IM_END
    return text, end.get("content") if isinstance(end, dict) else end


def render_chat(
    messages: Sequence[Message],
    tokenizer: ChatTokenizer,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[int], list[bool]]:
    """Render a conversation by the tokenizer's template, to the ids that `apply_chat_template` gives.

    Args:
        messages: The conversation.
        tokenizer: The tokenizer.
        add_generation_prompt: Whether to open the assistant's next turn.
        tools: JSON schemas of functions that the assistant may call.

    Returns:
        Ids, and for each whether the assistant wrote it: its content and the end of its turn.

    Raises:
        TemplateError: The template refuses the conversation.
    """
    rendered = tokenizer.template.render(messages, tools, add_generation_prompt)
    ids, mask = encode_rendered([rendered], [rendered.spans], tokenizer)[0]
    return ids.tolist(), mask.tolist()


def encode_rendered(rendered: Sequence[Rendered], learnt: Sequence[Spans], tokenizer: ChatTokenizer) -> list[Encoded]:
    """Encode rendered conversations, in parallel.

    Args:
        rendered: As the template gave them.
        learnt: Of each, the spans to learn from.
        tokenizer: The tokenizer.

    Returns:
        Of each conversation its ids [T], and which of them reach into a span [T].
    """
    plain = [number for number, each in enumerate(rendered) if SPELT not in each.text]
    parts = tokenizer.encode_obeying([rendered[n].text for n in plain], [learnt[n] for n in plain])
    encoded = dict(zip(plain, parts, strict=True))
    return [
        encoded[n] if n in encoded else tokenizer.encode_spelling(each.text, learnt[n])
        for n, each in enumerate(rendered)
    ]


def _mask(encoding: Encoding, length: int, spans: Spans) -> npt.NDArray[np.bool_]:
    """Tell which tokens reach into a span; the bounds alone are looked up, for listing all offsets is slow."""
    mask = np.zeros(len(encoding.ids), dtype=bool)
    for start, end in spans:
        if start == end:
            continue
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        behind = encoding.char_to_token(end) if end < length else len(mask)
        if first is None or last is None or behind is None:  # a blank that the tokenizer dropped
            return _overlap(encoding.offsets, spans)
        mask[first : max(behind, last + 1)] = True
    return mask


def _overlap(offsets: Sequence[tuple[int, int]], spans: Spans) -> npt.NDArray[np.bool_]:
    """Tell which tokens, by their characters, reach into a span."""
    places = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    mask = np.zeros(len(places), dtype=bool)
    for start, end in spans:
        mask |= (places[:, 1] > start) & (places[:, 0] < end)
    return mask
