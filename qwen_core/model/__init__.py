"""The Qwen decoder in plain torch, with Hugging Face's names and file format in both directions."""

from qwen_core.model.config import ModelConfig
from qwen_core.model.decoder import IGNORE, CausalLM, initialise
from qwen_core.model.generate import GREEDY, Sampling, generate
from qwen_core.model.huggingface import load_pretrained, save_pretrained

__all__ = [
    "GREEDY",
    "IGNORE",
    "CausalLM",
    "ModelConfig",
    "Sampling",
    "generate",
    "initialise",
    "load_pretrained",
    "save_pretrained",
]
