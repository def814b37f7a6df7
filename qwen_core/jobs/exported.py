"""A trained model as a clean Hugging Face folder: what transformers, vLLM and others open, and a card that tells of it.

model folder ─▶ tensors, one at a time ─▶ dtype ─▶ shards of at most so many bytes, index ─▶ folder
             └─▶ config.json, generation_config.json, tokenizer, chat template ─▶ README.md (model card)
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

from qwen_core.errors import InputError
from qwen_core.jobs.folders import ModelFolder, open_folder
from qwen_core.jobs.found import FoundModel
from qwen_core.model import load_state, save_pretrained
from qwen_core.model.huggingface import read_special_ids
from qwen_core.tokenizer import TOKENIZER_FILES, load_tokenizer

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def export_model(found: FoundModel, output: str, dtype: str | None = None, max_shard_size: str = "5GB") -> list[Path]:
    """Write a model folder.

    Args:
        found: The model.
        output: A folder that is empty, or that does not exist yet.
        dtype: `bf16`, `fp16` or `fp32`; `None` leaves the weights as they are.
        max_shard_size: Of one file, such as `5GB` or `500MiB`; a larger tensor has a file of its own.

    Returns:
        The files.

    Raises:
        ArtifactError: The model is not whole.
        InputError: The output holds files, or the size cannot be read.
    """
    target = Path(output).expanduser()
    limit = parse_size(max_shard_size)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not empty: an export never mixes with other files. Name another folder")
    model = open_folder(found.folder)
    ids = read_special_ids(model.place)
    save_pretrained(
        model.config,
        load_state(model.place),
        target,
        ids.eos or None,
        ids.pad,
        bos_token_id=ids.bos,
        dtype=DTYPES[dtype] if dtype else None,
        max_shard_bytes=limit,
    )
    _lay_beside(model, target)
    (target / "README.md").write_text(_card(found, model, target), encoding="utf-8")
    return sorted(target.iterdir())


def parse_size(text: str) -> int:
    """Read a size in bytes.

    Args:
        text: Such as `5GB`, `500 MiB`, `1000000`.

    Returns:
        Bytes.

    Raises:
        InputError: It is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise InputError(f"'{text}' is no size: give a number and B, KB, MB, GB, KiB, MiB or GiB, such as 5GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _lay_beside(model: ModelFolder, target: Path) -> None:
    """Copy the tokenizer, and how the model likes to generate."""
    for name in ("generation_config.json", *TOKENIZER_FILES):
        if (model.place / name).is_file():
            shutil.copyfile(model.place / name, target / name)


def _card(found: FoundModel, model: ModelFolder, target: Path) -> str:
    """Write the model card."""
    config, manifest = model.config, found.manifest
    rows = {
        "architecture": config.model_type,
        "parameters": f"{model.num_parameters:,}",
        "layers": config.num_hidden_layers,
        "hidden size": config.hidden_size,
        "attention heads": f"{config.num_attention_heads} ({config.num_key_value_heads} for keys and values)",
        "vocabulary": f"{config.vocab_size:,}",
        "longest sequence": f"{config.max_position_embeddings:,} tokens",
    }
    if manifest is not None:
        rows |= {"made by": f"stage {manifest.stage} of run {manifest.run_key}", "fingerprint": manifest.fingerprint}
        rows |= {"trained on": f"{manifest.tokens:,} tokens"} if manifest.tokens else {}
        rows |= {name.replace("_", " "): f"{manifest.metrics[name]:.4g}" for name in _told(manifest.metrics)}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    chat = _CHAT if (model.place / "tokenizer.json").is_file() and load_tokenizer(model.place).has_template else ""
    return _CARD.format(name=target.name, title=found.title, table=table, chat=chat)


def _told(metrics: dict[str, float]) -> list[str]:
    return [name for name in sorted(metrics) if name.startswith("last_")]


_CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [qwen-core]
---

# {name}

A language model made with qwen-core, from {title}.

| | |
|---|---|
{table}

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
{chat}```
"""

_CHAT = """chat = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
reply = model.generate(**inputs, max_new_tokens=256)[0, inputs["input_ids"].shape[1]:]
print(tokenizer.decode(reply, skip_special_tokens=True))
"""
