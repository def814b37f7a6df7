"""A tokenizer as a folder that Hugging Face's `AutoTokenizer` opens.

tokenizer.json           vocabulary and merges
tokenizer_config.json    control tokens by their role, and the chat template for readers that look for it there
chat_template.jinja      the chat template
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qwen_core.tokenizer.templates import chat_template
from qwen_core.tokenizer.train import ENDOFTEXT, IM_END

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""All that makes up a tokenizer's folder."""


def save_tokenizer(
    tokenizer: Tokenizer, folder: str | Path, template: str | None = None, end_token: str | None = None
) -> None:
    """Write a tokenizer's files.

    The end-of-sequence token is `<|im_end|>`, as in Qwen's chat models: it is what ends a turn. Documents in
    pretraining end with `<|endoftext|>`, which also pads.

    Args:
        tokenizer: Trained or imported.
        folder: Made where it is missing.
        template: Jinja text of the chat template; ChatML, unless the end token is told too.
        end_token: Ends a turn and a generation.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(place / "tokenizer.json"))
    added = tokenizer.get_added_tokens_decoder()
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(number): {
                "content": token.content,
                "special": token.special,
                "normalized": token.normalized,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
            }
            for number, token in sorted(added.items())
        },
        "pad_token": ENDOFTEXT,
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    (place / "tokenizer_config.json").write_text(_as_json(config), encoding="utf-8")
    if not template or not end_token:
        template, end_token = chat_template("chatml", (IM_END,))
    lay_template(place, template, end_token)


def lay_template(folder: str | Path, template: str, end_token: str) -> None:
    """Write a chat template into a tokenizer's folder, instead of the one that it has.

    Args:
        folder: With `tokenizer_config.json`.
        template: Jinja text.
        end_token: Ends a turn and a generation.
    """
    place = Path(folder)
    path = place / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config |= {"eos_token": end_token, "chat_template": template}
    path.write_text(_as_json(config), encoding="utf-8")
    (place / "chat_template.jinja").write_text(template, encoding="utf-8")


def _as_json(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
