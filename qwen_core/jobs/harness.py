"""Tasks of lm-evaluation-harness on a model folder, as one Ray task: multiple choice and generation.

    model folder ─▶ transformers (the harness's own `hf` model) ─▶ tasks ─▶ {"task/<task>/<measure>": value}

The harness opens the same folder that is released, so what it measures is what users of the folder get.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from qwen_core.errors import InputError, MissingDependencyError, QwenCoreError

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def run_tasks(folder: str, settings: Mapping[str, Any], device: str, seed: int) -> dict[str, float]:
    """Measure a model.

    Args:
        folder: Hugging Face folder.
        settings: Fields of the recipe's `evaluate.tasks`.
        device: Such as `cuda`.
        seed: Of few-shot examples and sampling.

    Returns:
        Values by `task/<task>/<measure>`, such as `task/gsm8k/exact_match`; groups of tasks too.

    Raises:
        MissingDependencyError: The harness is not installed.
        InputError: A task is not known.
        QwenCoreError: A task could not run; without `allow_downloads`, mostly because its data is not on this machine.
    """
    for name in _OFFLINE:  # read when the libraries are first loaded
        os.environ[name] = "0" if settings["allow_downloads"] else "1"
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingDependencyError(
            "evaluate.tasks needs lm-evaluation-harness: pip install 'qwen-core[eval]', or set evaluate.tasks.names=[]"
        ) from error
    manager = TaskManager(include_path=settings["include_path"])
    names = list(settings["names"])
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise InputError(
            f"evaluate.tasks.names: lm-evaluation-harness knows no {', '.join(unknown)}. `lm-eval ls tasks` lists its "
            f"own; for yours name their folder in evaluate.tasks.include_path"
        )
    try:
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": folder, "dtype": "auto", "trust_remote_code": False},
            tasks=names,
            num_fewshot=settings["num_fewshot"],
            limit=settings["limit"],
            batch_size=settings["batch_size"],
            apply_chat_template=settings["apply_chat_template"],
            device=device,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except Exception as error:
        hint = (
            "" if settings["allow_downloads"] else "; its data may be missing here: evaluate.tasks.allow_downloads=true"
        )
        raise QwenCoreError(f"tasks {', '.join(names)} failed: {type(error).__name__}: {error}{hint}") from error
    return _figures(found["results"] | found.get("groups", {}))


def _figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Flatten results; the harness names measures `<measure>,<filter>`."""
    figures: dict[str, float] = {}
    for task, measures in results.items():
        for name, value in measures.items():
            measure, _, kind = name.partition(",")
            if not isinstance(value, int | float) or isinstance(value, bool) or "stderr" in measure or not kind:
                continue
            title = measure if kind == "none" else f"{measure}_{kind}"
            figures[f"task/{task}/{title}".replace(" ", "_")] = float(value)
    return figures
