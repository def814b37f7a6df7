"""The Qwen decoder in plain torch, with Hugging Face's names and file format in both directions."""

from qwen_core.model.cache import KeyValueCache
from qwen_core.model.config import ModelConfig, RopeScaling
from qwen_core.model.decoder import CausalLM
from qwen_core.model.generate import GREEDY, Sampling, generate, generate_batch, stream
from qwen_core.model.huggingface import load_pretrained, load_state, save_pretrained
from qwen_core.model.initialise import initialise
from qwen_core.model.loss import IGNORE

__all__ = [
    "GREEDY",
    "IGNORE",
    "CausalLM",
    "KeyValueCache",
    "ModelConfig",
    "RopeScaling",
    "Sampling",
    "generate",
    "generate_batch",
    "initialise",
    "load_pretrained",
    "load_state",
    "save_pretrained",
    "stream",
]
