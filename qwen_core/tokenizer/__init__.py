"""Tokenizer: train or import, use, measure."""

from qwen_core.tokenizer.existing import existing_file, import_tokenizer
from qwen_core.tokenizer.measure import measure
from qwen_core.tokenizer.save import TOKENIZER_FILES, lay_template, save_tokenizer
from qwen_core.tokenizer.templates import OWN, TEMPLATES, ChatTemplate, Rendered, TemplateError, chat_template
from qwen_core.tokenizer.train import SPECIALS, train_tokenizer
from qwen_core.tokenizer.use import ChatTokenizer, Encoded, encode_rendered, load_tokenizer, render_chat, told_template

__all__ = [
    "OWN",
    "SPECIALS",
    "TEMPLATES",
    "TOKENIZER_FILES",
    "ChatTemplate",
    "ChatTokenizer",
    "Encoded",
    "Rendered",
    "TemplateError",
    "chat_template",
    "encode_rendered",
    "existing_file",
    "import_tokenizer",
    "lay_template",
    "load_tokenizer",
    "measure",
    "render_chat",
    "save_tokenizer",
    "told_template",
    "train_tokenizer",
]
