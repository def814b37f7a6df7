"""`evaluate`: what each model learnt, on held-out data, and what the aligned one says.

pretrain, sft, dpo ─▶ (one Ray task each) bits per byte by language and source, answer loss, preference accuracy,
                      tasks of lm-evaluation-harness where the recipe names any
dpo ─▶ one reply to each of the recipe's prompts
"""

from __future__ import annotations

import json
from typing import Any

import ray
import torch

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.chat import ChatModel
from qwen_core.data.packed import PackedSequences
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.harness import run_tasks
from qwen_core.jobs.training import split_files
from qwen_core.model import Sampling
from qwen_core.train.dpo import pair_logprobs, preference_accuracy
from qwen_core.train.pretrain import bits_per_byte
from qwen_core.train.sft import answer_loss, read_table
from qwen_core.train.task import Alone

_MODELS = ("pretrain", "sft", "dpo")
_BATCH = 8

Replies = list[dict[str, str]]


def run(context: Context) -> Outcome:
    """Measure all models.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; metrics are named `<model>.<measure>`, details hold the samples.
    """
    connect_ray()
    data = {
        "packed": context.inputs["pack"],
        "instruct": context.inputs["instruct"].path("validation.arrow"),
        "preference": context.inputs["preference"].path("validation.arrow"),
    }
    settings = context.section.model_dump()
    settings["sampling"] = Sampling(**settings["sampling"], seed=context.recipe.seed)
    options: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 if context.recipe.parallel.use_gpu else 0}
    waiting: dict[Any, str] = {}
    for name in _MODELS:
        folder = context.inputs[name].path("model")
        waiting[ray.remote(**options)(_measure).remote(folder, data, settings, name == "dpo")] = name
        if settings["tasks"]["names"] and name in settings["tasks"]["models"]:
            waiting[ray.remote(**options)(_tasks).remote(folder, settings["tasks"], context.recipe.seed)] = name
    metrics, samples = _gather(context, waiting)
    text = "\n\n".join(f"### {s['name']}: {s['prompt']}\n\n{s['reply']}" for s in samples)
    context.run.log_text(text, "samples.md")
    report = {"metrics": metrics, "samples": samples}
    context.store.write(f"{context.attempt.data_uri}/report.json", json.dumps(report, ensure_ascii=False, indent=1))
    return Outcome(rows=len(_MODELS), metrics=metrics, details={"samples": samples})


def _gather(context: Context, waiting: dict[Any, str]) -> tuple[dict[str, float], Replies]:
    """Wait for all measurements, reporting progress."""
    metrics: dict[str, float] = {}
    samples: Replies = []
    pending, total = list(waiting), len(waiting)
    while pending:
        (ready,), pending = ray.wait(pending, num_returns=1)
        figures, replies = ray.get(ready)
        metrics |= {f"{waiting[ready]}.{name}": value for name, value in figures.items()}
        samples += replies
        context.progress(total - len(pending), total, "measurements")
    return metrics, samples


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _tasks(folder: str, settings: dict[str, Any], seed: int) -> tuple[dict[str, float], Replies]:
    """Run the harness's tasks on one model."""
    return run_tasks(local_copy(folder), settings, _device(), seed), []


def _measure(
    folder: str, data: dict[str, Any], settings: dict[str, Any], speaks: bool
) -> tuple[dict[str, float], Replies]:
    """Measure one model, and let it speak if it is the aligned one."""
    chat = ChatModel(local_copy(folder), _device())
    model = Alone(chat.model, _device())
    measured = bits_per_byte(model, PackedSequences(split_files(data["packed"], "validation")), _BATCH)
    figures = {name: value for name, value in measured.items() if name.startswith("bits_per_byte")}
    figures["answer_loss"] = answer_loss(model, read_table(local_copy(data["instruct"])), _BATCH)["loss"]
    pairs = read_table(local_copy(data["preference"]))
    figures["preference_accuracy"] = preference_accuracy(*pair_logprobs(model, pairs, _BATCH))
    replies = []
    for name, prompt in settings["prompts"].items() if speaks else ():
        asked = [{"role": "user", "content": prompt}]
        reply = chat.reply(asked, settings["max_new_tokens"], settings["sampling"])
        replies.append({"name": name, "prompt": prompt, "reply": reply})
    return figures, replies
