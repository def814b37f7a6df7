"""Tokenizer: train or import, use, measure."""

from qwen_core.tokenizer.existing import existing_file, import_tokenizer
from qwen_core.tokenizer.measure import measure
from qwen_core.tokenizer.train import SPECIALS, save_tokenizer, train_tokenizer
from qwen_core.tokenizer.use import ChatTokenizer, load_tokenizer, render_chat

__all__ = [
    "SPECIALS",
    "ChatTokenizer",
    "existing_file",
    "import_tokenizer",
    "load_tokenizer",
    "measure",
    "render_chat",
    "save_tokenizer",
    "train_tokenizer",
]
