"""The held-out documents of `pack`: chosen, kept as texts with the artifact, found again, packed by any tokenizer."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from qwen_core.artifacts import Manifest, Store
from qwen_core.config import Recipe
from qwen_core.data.heldout import SCHEMA, Likeness, Tokens
from qwen_core.data.pack import pack
from qwen_core.data.packed import packed_schema
from qwen_core.errors import ArtifactError
from qwen_core.jobs.lineage import HELDOUT_FILE
from qwen_core.parts import read_rows
from qwen_core.tokenizer import ChatTokenizer

_SKETCHED = ("shingle_words", "num_buckets", "hashes_per_bucket", "seed")
_TRIES = 16


def pack_of(named: str, store: Store) -> Manifest:
    """Find the `pack` whose held-out documents are to be taken.

    Args:
        named: A run key, or the URI of a manifest.
        store: Where it lies.

    Returns:
        Its manifest.

    Raises:
        ArtifactError: There is none, or it is of before held-out texts were kept.
    """
    found = store.load(named) if named.endswith(".json") else store.of_run(named).get("pack")
    if found is None:
        raise ArtifactError(
            f"pack.heldout_from is '{named}', but no run of this key has packed anything in {store.root}"
        )
    if HELDOUT_FILE not in found.files:
        raise ArtifactError(
            f"{found.uri} keeps no texts of its held-out documents, as it was made by an earlier release: run its pack "
            f"again, or leave pack.heldout_from out"
        )
    return found


def read_heldout(manifest: Manifest) -> pa.Table | None:
    """Read the held-out documents of a `pack`.

    Args:
        manifest: Of `pack`.

    Returns:
        Rows of `data.heldout.SCHEMA`; `None` where the artifact is of before they were kept.
    """
    return read_rows(manifest.path(HELDOUT_FILE)) if HELDOUT_FILE in manifest.files else None


def pack_heldout(heldout: pa.Table, tokenizer: ChatTokenizer, max_seq_len: int) -> pa.Table:
    """Pack held-out documents, each group by itself, whatever the method of the training split.

    Args:
        heldout: Rows of `data.heldout.SCHEMA`, sorted by group.
        tokenizer: Of the model that is measured.
        max_seq_len: Tokens in a sequence.

    Returns:
        Rows of `packed.packed_schema`.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for row in heldout.to_pylist():
        groups.setdefault((row["language"], row["source"]), []).append(row["text"][: row["chars"]])
    tables = []
    for (language, source), texts in groups.items():
        tokens, lengths = tokenizer.encode_documents(texts, tokenizer.endoftext_id)
        packed = pack(
            tokens,
            lengths,
            max_seq_len=max_seq_len,
            separator=tokenizer.endoftext_id,
            token_bytes=tokenizer.token_bytes(),
            language=language,
            source=source,
        )
        tables.append(packed.table)
    return pa.concat_tables(tables).combine_chunks() if tables else packed_schema(max_seq_len).empty_table()


def fit_with(tokenizer: ChatTokenizer) -> Any:
    """Give what cuts a text to a number of tokens.

    Args:
        tokenizer: That counts.

    Returns:
        As `data.heldout.Fit`.
    """

    def fit(text: str, tokens: Tokens, room: int) -> str:
        cut = tokenizer.decode(tokens[:room].tolist()).rstrip("\ufffd")  # half a character
        if not text.startswith(cut):  # the tokenizer does not give the text back as it was
            cut = text[: len(text) * room // len(tokens)]
        for _ in range(_TRIES):
            if not cut or len(tokenizer.encode_documents([cut])[0]) <= room:
                return cut
            cut = cut[: -max(1, len(cut) // 20)]  # a cut word may take more tokens than the whole one
        return ""

    return fit


def likeness_of(heldout: pa.Table, recipe: Recipe) -> Likeness:
    """Sketch held-out documents as the recipe's `dedup` would.

    Args:
        heldout: Rows of `data.heldout.SCHEMA`.
        recipe: The whole recipe.

    Returns:
        What recognises them and their near duplicates.
    """
    return Likeness(heldout.select(SCHEMA.names), {name: getattr(recipe.dedup, name) for name in _SKETCHED})
