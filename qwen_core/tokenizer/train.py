"""Training of a byte-level BPE with Qwen's pre-tokenisation, written so that Hugging Face opens it.

    texts ─▶ NFC ─▶ split (Qwen2's pattern) ─▶ bytes ─▶ merges ─▶ tokenizer.json, tokenizer_config.json

Byte-level BPE: Radford et al., 2019 (GPT-2). As in Qwen, digits stand alone, any text has a spelling in bytes (no
unknown token), and the control tokens follow the learnt entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ENDOFTEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (ENDOFTEXT, IM_START, IM_END)
"""Control tokens, in Qwen's order."""

# Contractions; letters with one leading sign; single digits; runs of signs; line ends; other white space.
# The pattern decides token bounds, so it is Qwen2's to the letter.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def train_tokenizer(texts: Iterator[list[str]], vocab_size: int, min_frequency: int) -> Tokenizer:
    """Train on batches of texts; the result does not depend on their order.

    The trainer counts words first, then merges the most frequent pair, of equally frequent ones that of the lower
    ids; ids follow the merges, so neither batches nor threads show in the result.

    Args:
        texts: Batches.
        vocab_size: Entries, control tokens included.
        min_frequency: Rarer pairs are not merged.

    Returns:
        The tokenizer; with little text it has fewer entries than asked for.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIALS),
        min_frequency=min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write the files that Hugging Face's `AutoTokenizer` opens, with the ChatML template.

    The end-of-sequence token is `<|im_end|>`, as in Qwen's chat models: it is what ends a turn. Documents in
    pretraining end with `<|endoftext|>`, which also pads.

    Args:
        tokenizer: As `train_tokenizer` gave it.
        folder: Made where it is missing.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(place / "tokenizer.json"))
    added = tokenizer.get_added_tokens_decoder()
    config = {
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
        "eos_token": IM_END,
        "pad_token": ENDOFTEXT,
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (place / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
