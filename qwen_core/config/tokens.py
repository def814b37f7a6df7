"""Recipe sections that turn text into token ids: tokenizer, pack, instruct, preference."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section

Weight = Annotated[float, Field(ge=0, le=1000)]


class Mix(Section):
    """How often documents are taken for the tokenizer and for training: 1 is once, 0.1 a tenth, 4 four times."""

    languages: dict[str, Weight] = Field({}, description="Weight by language, such as code: 0.1.")
    sources: dict[str, Weight] = Field({}, description="Weight by source, such as bundled: 4; multiplies.")


class Tokenizer(Section):
    """Training of the byte-level BPE."""

    vocab_size: int = Field(8192, ge=300, description="Entries with the specials; 256 bytes are always in.")
    min_frequency: Count = Field(2, description="Rarer pairs are not merged.")
    max_sample_bytes: Count = Field(20_000_000, description="Text read for training, drawn evenly over sources.")


class Pack(Section):
    """Fixed-length training sequences and the held-out set."""

    max_seq_len: Count = Field(512, description="Tokens of one training sequence.")
    validation_ratio: Ratio = Field(0.02, description="Share of documents held out, by hash of their id.")
    max_validation_sequences: Count = Field(64, description="Upper bound of the held-out set.")


class Instruct(Section):
    """Instruction data, rendered as ChatML."""

    inputs: tuple[str, ...] = Field(("bundled",), description="JSONL/JSON files (messages, Alpaca, ShareGPT).")
    max_seq_len: Count = Field(512, description="Longer conversations are dropped as too_long.")
    validation_ratio: Ratio = Field(0.1, description="Share held out, by hash.")


class Preference(Section):
    """Preference pairs, rendered as ChatML."""

    inputs: tuple[str, ...] = Field(("bundled",), description="JSONL/JSON files of prompt, chosen, rejected.")
    max_seq_len: Count = Field(512, description="Longer conversations are dropped as too_long.")
    validation_ratio: Ratio = Field(0.2, description="Share held out, by hash.")
