"""Raw text to an aligned Qwen-style language model, as scheduled workflows."""

__version__ = "0.1.0"
