"""Small Hugging Face folders for tests: weights by transformers or by us, and a tokenizer that fits."""

import json

from qwen_core.model import CausalLM, ModelConfig, initialise, save_pretrained
from qwen_core.tokenizer import save_tokenizer, train_tokenizer

LINES = ["The river flows to the sea 2024.", "河水流向大海，慢慢沉下细沙。", "def f(x):\n    return x\n"] * 20
CONVERSATIONS = [
    {"messages": [{"role": "user", "content": f"河 {n}?"}, {"role": "assistant", "content": f"Sea {n}. 大海"}]}
    for n in range(12)
]


def tokenizer_of(size=320):
    return train_tokenizer(iter([LINES]), size, 2)


def config(vocab_size=352, **changes):
    figures = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    return ModelConfig(**figures | changes)


def model_folder(place, tokenizer=None, **changes):
    """Write a folder; return its model."""
    model = CausalLM(config(**changes))
    initialise(model, 3)
    save_pretrained(model.config, model.state_dict(), place, 319, 317)
    save_tokenizer(tokenizer or tokenizer_of(), place)
    return model


def write_conversations(path, rows=CONVERSATIONS):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return str(path)
