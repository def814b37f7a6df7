"""Starting a training stage: Ray Train starts the workers, each runs the loop, rank 0 writes the model.

job ─▶ check the plan ─▶ TorchTrainer ─▶ worker x N: task, model, engine, resume, loop ─▶ model folder, history
                            └─ checkpoints: <state>/train/checkpoint_..., continued from after any death
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from qwen_core import progress
from qwen_core.artifacts import upload
from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Optimiser
from qwen_core.errors import QwenCoreError, RecipeError
from qwen_core.model import CausalLM, save_pretrained
from qwen_core.parallel import gather_state
from qwen_core.train.distributed import rank
from qwen_core.train.loop import Loop
from qwen_core.train.task import Task

_TAG = "state"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


@dataclass(frozen=True)
class Plan:
    """All that a worker needs; travels to it by pickle.

    Attributes:
        stage: The stage's word.
        settings: Its recipe section.
        parallel: The recipe's.
        seed: The recipe's.
        make_model: Builds the full model, the same on each worker.
        make_task: Builds the stage's side of the loop; gets the full model, for a frozen reference.
        output_uri: Folder for `model/` and `history.jsonl`.
        state_uri: Folder for checkpoints.
        tokenizer_folder: Its files are laid beside the weights.
        eos_token_id: Ends a generation of the finished model.
        pad_token_id: Fills batches.
        log: Takes figures and their step, on rank 0.
    """

    stage: str
    settings: Optimiser
    parallel: Parallel
    seed: int
    make_model: Callable[[], CausalLM]
    make_task: Callable[[CausalLM], Task]
    output_uri: str
    state_uri: str
    tokenizer_folder: str
    eos_token_id: int
    pad_token_id: int
    log: Callable[[dict[str, float], int], None]


def check_plan(stage: str, settings: Optimiser, parallel: Parallel) -> None:
    """Refuse a plan that cannot run, before anything starts.

    Args:
        stage: The stage's word.
        settings: Its recipe section.
        parallel: The recipe's.

    Raises:
        RecipeError: Batch sizes do not divide, or the cluster has too few CPUs or GPUs.
    """
    one_pass = settings.micro_batch_size * parallel.num_workers
    if settings.global_batch_size % one_pass:
        nearest = max(1, round(settings.global_batch_size / one_pass)) * one_pass
        raise RecipeError(
            f"{stage}.global_batch_size ({settings.global_batch_size}) must be a multiple of {stage}.micro_batch_size "
            f"x parallel.num_workers ({settings.micro_batch_size} x {parallel.num_workers} = {one_pass}); "
            f"the nearest is {nearest}"
        )
    have = ray.cluster_resources()
    kind, needed = (
        ("GPU", parallel.num_workers) if parallel.use_gpu else ("CPU", parallel.num_workers * parallel.cpus_per_worker)
    )
    if have.get(kind, 0) < needed:
        raise RecipeError(
            f"{stage} needs {needed:g} {kind}s (parallel.num_workers={parallel.num_workers}), the Ray cluster has "
            f"{have.get(kind, 0):g}; lower parallel.num_workers or add nodes"
        )


def train(plan: Plan) -> None:
    """Run a training stage to its end, from where an earlier attempt stopped; the result lies in its output folder.

    Args:
        plan: What to do.

    Raises:
        QwenCoreError: Training failed more often than `max_failures`, or diverged.
    """
    check_plan(plan.stage, plan.settings, plan.parallel)
    resources = {"GPU": 1.0} if plan.parallel.use_gpu else {}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"plan": plan},
        torch_config=TorchConfig(backend="nccl" if plan.parallel.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=plan.parallel.num_workers,
            use_gpu=plan.parallel.use_gpu,
            resources_per_worker={"CPU": plan.parallel.cpus_per_worker, **resources},
        ),
        run_config=ray.train.RunConfig(
            name="train",  # one name below the stage's own folder: a new job finds the checkpoints of a dead one
            storage_path=plan.state_uri,
            failure_config=ray.train.FailureConfig(max_failures=plan.settings.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise QwenCoreError(f"{plan.stage} failed: {_root_cause(error)}") from error


def _root_cause(error: BaseException) -> str:
    """Find the message of the worker's own error inside Ray's wrappers."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        error = failure
        break
    while getattr(error, "cause", None) is not None:
        error = error.cause  # type: ignore[attr-defined]
    return f"{type(error).__name__}: {error}"


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    plan: Plan = config["plan"]
    # DeepSpeed calls torch's collectives by names that torch has begun to rename: a line at each step otherwise.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    torch.set_num_threads(plan.parallel.threads_per_worker)
    torch.manual_seed(plan.seed)
    model = plan.make_model()
    task = plan.make_task(model)
    loop = Loop(model, task, plan.settings, plan.parallel, plan.seed)
    first_step = _resume(loop)

    def log(figures: dict[str, float], step: int) -> None:
        if rank() == 0:
            plan.log(figures, step)
            shown = {
                "loss": "train/loss",
                "validation_loss": "validation/loss",
                "tokens_per_second": "train/tokens_per_second",
            }
            told = {name: figures[key] for name, key in shown.items() if key in figures}
            progress.report(plan.stage, step, plan.settings.max_steps, "steps", **told)

    loop.run(first_step, log, _save)
    _finish(plan, loop)


def _resume(loop: Loop) -> int:
    """Continue from the last checkpoint, where there is one; return the step that comes next."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        _, state = loop.engine.load_checkpoint(folder, tag=_TAG)
    loop.history, loop.tokens = state["history"], state["tokens"]
    if rank() == 0:
        print(f"resumed at step {state['step']}", flush=True)
    return int(state["step"])


def _save(loop: Loop, step: int) -> None:
    """Checkpoint: each worker writes its shard, Ray brings them together."""
    with tempfile.TemporaryDirectory() as folder:
        state = {"step": step, "history": loop.history, "tokens": loop.tokens}
        loop.engine.save_checkpoint(folder, tag=_TAG, client_state=state)
        ray.train.report({"step": float(step)}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _lay_tokenizer(plan: Plan, model_max_length: int, target: Path) -> None:
    """Copy the tokenizer's files beside the weights, and tell in them how long a sequence the model takes."""
    for file in _TOKENIZER_FILES:
        source = Path(plan.tokenizer_folder) / file
        if source.is_file():
            (target / file).write_bytes(source.read_bytes())
    told = target / "tokenizer_config.json"
    if told.is_file():
        config = json.loads(told.read_text(encoding="utf-8")) | {"model_max_length": model_max_length}
        told.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _finish(plan: Plan, loop: Loop) -> None:
    """Write the model folder and the history; the weights are gathered by all, written by rank 0."""
    state = gather_state(loop.engine)
    if state is None:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_pretrained(loop.model.config, state, folder / "model", plan.eos_token_id, plan.pad_token_id)
        _lay_tokenizer(plan, loop.model.config.max_position_embeddings, folder / "model")
        lines = "".join(json.dumps(event) + "\n" for event in loop.history)
        (folder / "history.jsonl").write_text(lines, encoding="utf-8")
        upload(name, plan.output_uri)
