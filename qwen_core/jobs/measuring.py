"""What one Ray task of `evaluate` does: measure a model on held-out data, and let it speak.

A module of its own, for the process of each task imports it: nothing here loads MLflow.
"""

from __future__ import annotations

from typing import Any

import torch

from qwen_core.artifacts import local_copy, split_files
from qwen_core.chat import ChatModel
from qwen_core.data.packed import PackedSequences
from qwen_core.jobs.harness import run_tasks
from qwen_core.jobs.heldout import pack_heldout, read_heldout
from qwen_core.tokenizer import load_tokenizer
from qwen_core.train.dpo import pair_logprobs, preference_accuracy
from qwen_core.train.pretrain import bits_per_byte
from qwen_core.train.sft import answer_loss, read_table
from qwen_core.train.task import Alone

_BATCH = 8

Replies = list[dict[str, str]]


def run_harness(folder: str, settings: dict[str, Any], seed: int) -> tuple[dict[str, float], Replies]:
    """Run the harness's tasks on one model.

    Args:
        folder: The model's, local or in an object store.
        settings: The recipe's `evaluate.tasks`.
        seed: For what is drawn.

    Returns:
        Figures by name; it says nothing.
    """
    return run_tasks(local_copy(folder), settings, _device(), seed), []


def measure(
    folder: str, data: dict[str, Any], settings: dict[str, Any], speaks: bool
) -> tuple[dict[str, float], Replies]:
    """Measure one model, and let it speak if it is the aligned one.

    Args:
        folder: The model's, local or in an object store.
        data: The manifest `packed`, and where `instruct`, `preference` and `tokenizer` lie.
        settings: `prompts`, `max_new_tokens` and `sampling`.
        speaks: Whether it replies to the prompts.

    Returns:
        Figures by name, and its replies.
    """
    chat = ChatModel(local_copy(folder), _device())
    model = Alone(chat.model, _device())
    figures = _bits(model, PackedSequences(split_files(data["packed"], "validation"))) | _aligned(model, data)
    replies = []
    for name, prompt in settings["prompts"].items() if speaks else ():
        asked = [{"role": "user", "content": prompt}]
        reply = chat.reply(asked, settings["max_new_tokens"], settings["sampling"])
        replies.append({"name": name, "prompt": prompt, "reply": reply})
    return figures, replies


def measure_again(folder: str, data: dict[str, Any]) -> dict[str, float]:
    """Measure a champion; with another tokenizer on the same texts, and on nothing that is kept as tokens.

    Args:
        folder: The model's, local or in an object store.
        data: As `measure` takes it.

    Returns:
        Figures by name; none where its tokenizer is another and no texts were kept.
    """
    chat = ChatModel(local_copy(folder), _device())
    model = Alone(chat.model, _device())
    packed = PackedSequences(split_files(data["packed"], "validation"))
    if chat.tokenizer.tokens() == load_tokenizer(local_copy(data["tokenizer"])).tokens():
        return _bits(model, packed) | _aligned(model, data)
    texts = read_heldout(data["packed"])
    if texts is None:
        return {}
    table = pack_heldout(texts, chat.tokenizer, data["packed"].details["max_seq_len"])
    return _bits(model, PackedSequences.of(table))


def _bits(model: Alone, sequences: PackedSequences) -> dict[str, float]:
    measured = bits_per_byte(model, sequences, _BATCH)
    return {name: value for name, value in measured.items() if name.startswith("bits_per_byte")}


def _aligned(model: Alone, data: dict[str, Any]) -> dict[str, float]:
    """Measure on conversations and pairs, which are kept as tokens."""
    pairs = read_table(local_copy(data["preference"]))
    return {
        "answer_loss": answer_loss(model, read_table(local_copy(data["instruct"])), _BATCH)["loss"],
        "preference_accuracy": preference_accuracy(*pair_logprobs(model, pairs, _BATCH)),
    }


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
