"""Recipe sections that turn text into token ids: tokenizer, pack, instruct, preference."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from qwen_core.config.base import Count, Ratio, Section

Weight = Annotated[float, Field(ge=0, le=1000)]


class Mix(Section):
    """How often documents are taken for the tokenizer and for training: by weights, or by a budget of tokens.

    Weights are obeyed as they stand. With a budget (`total_tokens`, `tokens`, `shares` or `alpha`) they only say how
    the documents within it stand to one another, and none is taken more often than `max_epochs`.
    """

    languages: dict[str, Weight] = Field({}, description="Weight by language, such as code: 0.1.")
    sources: dict[str, Weight] = Field({}, description="Weight by source, such as bundled: 4; multiplies.")
    alpha: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Languages of n tokens each are taken in proportion to n^alpha; 0.3 as in XLM-R and mT5."
    )
    total_tokens: Count | None = Field(None, description="Tokens in all; without it, those of the weighted corpus.")
    tokens: dict[str, Count] = Field({}, description="Tokens of a language, else of a source; source:NAME forces.")
    shares: dict[str, Ratio] = Field({}, description="The same as a share of all tokens, such as zh: 0.5.")
    max_epochs: Annotated[float, Field(gt=0, le=1000)] = Field(
        4.0, description="How often a budget may take a document; more than 4 teaches little."
    )
    source_max_epochs: dict[str, Weight] = Field({}, description="The same by source, where it differs.")

    @model_validator(mode="after")
    def _budgets_agree(self) -> Self:
        twice = sorted(set(self.tokens) & set(self.shares))
        if twice:
            raise ValueError(f"both tokens and shares name {', '.join(twice)}: give one of the two")
        if sum(self.shares.values()) > 1 + 1e-9:
            raise ValueError(f"the shares add up to {sum(self.shares.values()):.4g}: they may reach 1")
        return self


class Tokenizer(Section):
    """A byte-level BPE, trained on a sample of the mix, or one that exists."""

    later: ClassVar[frozenset[str]] = frozenset({"keep_from", "max_drift_ratio"})

    import_path: str | None = Field(None, description="Folder with a tokenizer.json to take instead of training.")
    add_chat_tokens: bool = Field(True, description="Add ChatML's control tokens that an imported one lacks.")
    vocab_size: int = Field(8192, ge=300, description="Entries with the specials; 256 bytes are always in.")
    min_frequency: Count = Field(2, description="Rarer pairs are not merged.")
    max_sample_bytes: Count = Field(20_000_000, description="Text read for training, drawn by language and source.")
    validation_ratio: Ratio = Field(0.02, description="Share of documents kept for measuring, by hash of their id.")
    max_measured_documents: Count = Field(200, description="Documents of each language to measure on, at most.")
    keep_from: str | None = Field(
        None,
        description="Run key, or URI of a tokenizer's manifest, whose tokenizer is kept as long as it fits the corpus.",
    )
    max_drift_ratio: float = Field(
        0.05,
        ge=0,
        description="With keep_from: a new one is trained where the old one takes this share more tokens for a byte of "
        "held-out text than when it was trained.",
    )


class Pack(Section):
    """Fixed-length training sequences and the held-out set."""

    later: ClassVar[frozenset[str]] = frozenset({"heldout_from", "new_weight", "old_weight", "new_from"})

    method: Literal["concatenate", "best_fit"] = Field(
        "concatenate", description="End to end, cut where a sequence is full; or whole documents, padded."
    )
    max_seq_len: Count = Field(512, description="Tokens of one training sequence.")
    validation_ratio: Ratio = Field(0.02, description="Share of documents held out, by hash of their id.")
    max_validation_sequences: Count = Field(64, description="Upper bound of the held-out set.")
    heldout_from: str | None = Field(
        None,
        description="Run key, or URI of a pack's manifest, whose held-out documents are taken: figures of all runs "
        "that share them compare. Neither they nor near duplicates of them are trained on.",
    )
    new_from: str | None = Field(
        None,
        description="Run key, or URI of an ingest's manifest: what is not in it is new, for the next two keys.",
    )
    new_weight: Weight = Field(1.0, description="How often new documents are taken; multiplies the mix.")
    old_weight: Weight = Field(1.0, description="How often the others are taken; multiplies the mix.")


class Rendering(Section):
    """How conversations become text."""

    template: Literal["chatml", "llama3", "gemma", "mistral", "alpaca", "vicuna", "plain", "own"] = Field(
        "chatml", description="Chat template, which goes with the model; own is the one that lies with the tokenizer."
    )
    system: str | None = Field(None, description="System message for conversations that bring none; in the template.")
    max_seq_len: Count = Field(512, description="Longer conversations are dropped as too_long.")


class Instruct(Rendering):
    """Instruction data, rendered as conversations."""

    inputs: tuple[str, ...] = Field(("bundled",), description="JSONL/JSON files (messages, Alpaca, ShareGPT).")
    train_on: Literal["all", "last"] = Field("all", description="The assistant's turns that are learnt from.")
    validation_ratio: Ratio = Field(0.1, description="Share held out, by hash.")


class Preference(Rendering):
    """Preference pairs, rendered as conversations; template and system as in instruct, where that is run too."""

    inputs: tuple[str, ...] = Field(("bundled",), description="JSONL/JSON files of prompt, chosen, rejected.")
    validation_ratio: Ratio = Field(0.2, description="Share held out, by hash.")
