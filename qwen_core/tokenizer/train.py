"""Training of a byte-level BPE with Qwen's pre-tokenisation.

    texts ─▶ NFC ─▶ split (Qwen2's pattern) ─▶ bytes ─▶ merges

Byte-level BPE: Radford et al., 2019 (GPT-2). As in Qwen, digits stand alone, any text has a spelling in bytes (no
unknown token), and the control tokens follow the learnt entries.
"""

from __future__ import annotations

from collections.abc import Iterator

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
