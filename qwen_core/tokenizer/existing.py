"""An existing Hugging Face tokenizer instead of a trained one.

    folder ─▶ tokenizer.json ─▶ BPE or Unigram? ─▶ ChatML's control tokens, added where allowed ─▶ tokenizer

Nothing else in the folder is read here; the chat template that lies with it is kept by the job, for `template: own`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from qwen_core.errors import InputError
from qwen_core.tokenizer.train import SPECIALS

_LOSSLESS = ("BPE", "Unigram")
_SLOW_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json", "qwen.tiktoken")


def existing_file(folder: str | Path) -> Path:
    """Find the file of a tokenizer in a folder.

    Args:
        folder: The recipe's `tokenizer.import_path`.

    Returns:
        Its `tokenizer.json`.

    Raises:
        InputError: There is none; the message tells what there is instead.
    """
    place = Path(folder).expanduser()
    path = place if place.name == "tokenizer.json" else place / "tokenizer.json"
    if path.is_file():
        return path
    if not place.is_dir():
        raise InputError(f"tokenizer.import_path: no such folder: {place}")
    slow = [name for name in _SLOW_FILES if (place / name).is_file()]
    found = f"it holds {', '.join(slow)}, which is the slow form" if slow else "it holds no tokenizer"
    raise InputError(
        f"tokenizer.import_path: no tokenizer.json in {place}: {found}. Convert it once: "
        f"AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OTHER_FOLDER)"
    )


def import_tokenizer(folder: str | Path, add_chat_tokens: bool) -> Tokenizer:
    """Open an existing tokenizer and see that conversations can be rendered with it.

    Args:
        folder: With `tokenizer.json`.
        add_chat_tokens: Whether to add the control tokens that it lacks, behind its last id.

    Returns:
        The tokenizer.

    Raises:
        InputError: There is none, it is broken or of a kind that cannot give texts back, or it lacks control tokens.
    """
    path = existing_file(folder)
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"tokenizer.import_path: {path} cannot be read as a tokenizer: {error}") from error
    kind = tree["model"].get("type") or "unknown"
    if kind not in _LOSSLESS:
        raise InputError(
            f"tokenizer.import_path: {path} is a {kind} model, which loses blanks and rare characters: a language "
            f"model could not write every text. Take a {' or '.join(_LOSSLESS)} one, or train (import_path=null)"
        )
    lacking = [token for token in SPECIALS if tokenizer.token_to_id(token) is None]
    if lacking and not add_chat_tokens:
        raise InputError(
            f"tokenizer.import_path: {path} lacks {', '.join(lacking)}, which documents and conversations need. "
            f"tokenizer.add_chat_tokens=true adds them"
        )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in lacking])
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if len(set(vocabulary.values())) < len(vocabulary):
        raise InputError(
            f"tokenizer.import_path: {path} has ids with gaps, and the added {', '.join(lacking)} fall on taken ones. "
            f"Add these tokens to it yourself, with ids of their own"
        )
    return tokenizer
