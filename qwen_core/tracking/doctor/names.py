"""Which metric is which, in the words of many tools, and which tool logged a run.

Seen in the wild: `train/loss` and `validation/loss` (ours), `loss` and `eval_loss` (transformers' Trainer, TRL,
LLaMA-Factory), `train_loss`, `train_loss_step`, `val_loss` (Lightning), `loss` and `val_loss` (Keras),
`lm loss` and `lm loss validation` (Megatron), `Loss/train` and `Loss/valid` (plain scripts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from qwen_core.tracking.doctor.record import Curve, Run

ROLES = ("train_loss", "validation_loss", "learning_rate", "grad_norm", "loss_scale", "epoch", "tokens")
"""What a metric can be to the doctor, in the order in which a page lists them."""

_TRAIN = {"train", "training", "trainer", "tr"}
_HELD_OUT = {"val", "valid", "validation", "eval", "evaluation", "dev", "heldout", "holdout", "test"}
_LOSS = {"loss", "nll", "ce", "xent", "crossentropy"}
_SUMMARY = {"first", "last", "best", "min", "max", "final", "lowest", "initial"}
_NOT_THE_LOSS = {
    *("scale", "scaling", "spike", "spikes", "weight", "coef", "router", "aux", "auxiliary", "balance", "balancing"),
    *("load", "z"),
    *("bits", "per", "accuracy", "time", "runtime", "ratio", "count", "std", "var"),
}
_IGNORED = ("system/", "events/", "time/")
_SPLIT = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LEARNING_RATE = re.compile(r"(^|[^a-z])(lr|learning[ _-]?rate)([^a-z]|$)")
_GRAD_NORM = re.compile(r"grad(ient)?s?[ _/.-]*(global[ _/.-]*)?(total[ _/.-]*)?norm|(^|/)grad_2\.0_norm")
_LOSS_SCALE = re.compile(r"(loss|grad|amp)[ _/-]*scale")
_TOKENS = re.compile(r"(^|/)(num_)?(tokens|input_tokens_seen|tokens_seen|consumed_tokens)$")
_EPOCH = re.compile(r"(^|/)epochs?$")


def words_of(name: str) -> set[str]:
    """Split a metric's name into lower-case words.

    Args:
        name: Such as `eval/valLoss`.

    Returns:
        Such as `{"eval", "val", "loss"}`.
    """
    text = _CAMEL.sub(" ", name).lower().replace("held-out", "heldout").replace("held_out", "heldout")
    return set(_SPLIT.split(text.replace("cross_entropy", "crossentropy"))) - {""}


@cache
def role_of(name: str) -> str | None:
    """Tell what a metric is.

    Args:
        name: As logged.

    Returns:
        One of `ROLES`, or None where the name says nothing that the doctor needs.
    """
    if name.startswith(_IGNORED):
        return None
    lower, words = name.lower(), words_of(name)
    if words & _SUMMARY:
        return None
    for role, pattern in (
        ("loss_scale", _LOSS_SCALE),
        ("learning_rate", _LEARNING_RATE),
        ("grad_norm", _GRAD_NORM),
        ("tokens", _TOKENS),
        ("epoch", _EPOCH),
    ):
        if pattern.search(lower):
            return role
    if words & _LOSS and not words & _NOT_THE_LOSS:
        return "validation_loss" if words & _HELD_OUT else "train_loss"
    return None


def is_held_out(name: str) -> bool:
    """Tell whether a metric was measured on held-out data, whatever it measures.

    Args:
        name: As logged.

    Returns:
        True for `eval_accuracy` and `validation/bits_per_byte`, false for `train/loss`.
    """
    return bool(words_of(name) & (_HELD_OUT - {"test"})) and not name.startswith(_IGNORED)


def is_wanted(name: str) -> bool:
    """Tell whether a metric's history is worth reading.

    Args:
        name: As logged.

    Returns:
        True for what has a role, was held out, or is an event of the guards.
    """
    return role_of(name) is not None or is_held_out(name) or name.startswith("events/")


def roles_of(curves: Mapping[str, Curve], chosen: Mapping[str, str]) -> dict[str, str]:
    """Choose the metric that plays each role.

    Args:
        curves: By name.
        chosen: Role to name, where the user said it.

    Returns:
        Role to name. Of several candidates the plainest name wins; a curve always wins over a single point, for
        tools log a summary such as `train_loss` beside the curve `loss`.
    """
    candidates: dict[str, list[str]] = {}
    for name in curves:
        role = role_of(name)
        if role is not None and name not in chosen.values():
            candidates.setdefault(role, []).append(name)
    found = {role: min(names, key=lambda n: _rank(role, curves[n])) for role, names in candidates.items()}
    return found | dict(chosen)


def _rank(role: str, curve: Curve) -> tuple[bool, bool, bool, int, int, str]:
    words = words_of(curve.name)
    own = _TRAIN if role == "train_loss" else _HELD_OUT if role == "validation_loss" else set()
    odd = words - _LOSS - own - {"step", "lm", "learning", "rate", "lr", "grad", "norm", "cross", "entropy"}
    return len(curve) < 2, "test" in words, "epoch" in words, len(odd), -len(curve), curve.name


def tool_of(run: Run, names: Iterable[str] = ()) -> str:
    """Recognise the tool that logged a run.

    Args:
        run: The run.
        names: Names of all its metrics.

    Returns:
        `ours`, `llamafactory`, `trl`, `trainer` (transformers), `lightning`, `keras`, `megatron`, or `any`.
    """
    params, known = set(run.params), set(names)
    autologged = run.tags.get("mlflow.autologging", "")
    signs = {
        "ours": run.stage
        or any("min_validation_points" in name for name in params)
        or {"train/loss", "train/learning_rate", "train/tokens"} <= known,
        "llamafactory": params & {"finetuning_type", "val_size", "cutoff_len"},
        "trl": params & {"dataset_text_field", "max_prompt_length", "loss_type", "assistant_only_loss"}
        and "per_device_train_batch_size" in params,
        "trainer": params & {"per_device_train_batch_size", "eval_strategy", "evaluation_strategy", "logging_steps"}
        or known & {"eval_runtime", "train_runtime"},
        "keras": autologged in ("keras", "tensorflow") or params & {"opt_name", "optimizer_name", "validation_split"},
        "lightning": params & {"check_val_every_n_epoch", "val_check_interval", "max_epochs", "num_sanity_val_steps"}
        or known & {"train_loss_step", "train_loss_epoch", "val_loss_epoch"},
        "megatron": "lm loss" in known or params & {"eval_interval", "eval_iters"},
    }
    return next((tool for tool, is_seen in signs.items() if is_seen), "any")
