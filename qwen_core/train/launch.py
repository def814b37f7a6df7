"""Starting a training stage: Ray Train starts the workers, each runs the loop, rank 0 writes the model.

job ─▶ check the plan ─▶ TorchTrainer ─▶ worker x N: task, model, engine, resume, loop ─▶ model folder, history
                            └─ checkpoints: <state>/checkpoints/step-..., continued from after any death
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Optimiser
from qwen_core.errors import QwenCoreError, RecipeError

if TYPE_CHECKING:
    from qwen_core.model import CausalLM
    from qwen_core.tracking.runs import StageRun
    from qwen_core.train.alerts import AlertPlan
    from qwen_core.train.task import Task


_CONSEQUENCES = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe")
"""What workers say that lost touch with one that failed."""


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
        run: The stage's MLflow run; without one nothing goes to MLflow.
        alerts: Where alerts go.
        identity: What a checkpoint must share with this run beside the model, such as fingerprints of its inputs.
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
    run: StageRun | None = None
    alerts: AlertPlan | None = None
    identity: Mapping[str, str] = field(default_factory=dict)


def check_plan(stage: str, settings: Optimiser, parallel: Parallel) -> None:
    """Refuse a plan that cannot run, before anything starts.

    Args:
        stage: The stage's word.
        settings: Its recipe section.
        parallel: The recipe's.

    Raises:
        RecipeError: Batch sizes do not divide, or the cluster has too few CPUs or GPUs.
    """
    _check_batches(stage, settings, parallel)
    if settings.precision == "fp16" and not parallel.use_gpu:
        raise RecipeError(
            f"{stage}.precision is fp16, which needs a GPU: on a CPU take bf16 (the same memory and speed, no loss "
            f"scale), or set parallel.use_gpu"
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


def _check_batches(stage: str, settings: Optimiser, parallel: Parallel) -> None:
    """Refuse batch sizes that cannot be dealt out evenly."""
    one_pass = settings.micro_batch_size * parallel.data_size
    for key in ("batch_ramp_start", "global_batch_size"):
        size = getattr(settings, key)
        if size is not None and size % one_pass:
            nearest = max(1, round(size / one_pass)) * one_pass
            raise RecipeError(
                f"{stage}.{key} ({size}) must be a multiple of {stage}.micro_batch_size x the shares that a batch is "
                f"dealt out to ({settings.micro_batch_size} x {parallel.data_size} = {one_pass}); the nearest is "
                f"{nearest}"
            )


def train(plan: Plan) -> None:
    """Run a training stage to its end, from where an earlier attempt stopped; the result lies in its output folder.

    Args:
        plan: What to do.

    Raises:
        QwenCoreError: Training failed more often than `max_failures`.
        DivergedError: It went astray, and going back to a checkpoint did not help.
    """
    check_plan(plan.stage, plan.settings, plan.parallel)
    workers = plan.parallel.num_workers
    print(f"[{plan.stage}] starting {workers} worker{'s' if workers > 1 else ''}", flush=True)
    try:
        result = _trainer(plan).fit()
    except Exception as error:
        raise QwenCoreError(f"{plan.stage} failed: {root_cause(error)}") from error
    diverged = (result.metrics or {}).get("diverged")
    if diverged:
        from qwen_core.train.guards import DivergedError

        raise DivergedError(f"{plan.stage} failed: {diverged}")


def _trainer(plan: Plan) -> TorchTrainer:
    """Describe the workers to Ray Train."""
    parallel, settings = plan.parallel, plan.settings
    backend = "nccl" if parallel.use_gpu else "gloo"
    resources = {"CPU": parallel.cpus_per_worker} | ({"GPU": 1.0} if parallel.use_gpu else {})
    return TorchTrainer(
        _work,
        train_loop_config={"plan": plan, "started": time.time()},
        torch_config=TorchConfig(backend=backend, timeout_s=settings.guards.collective_timeout_seconds),
        scaling_config=ray.train.ScalingConfig(
            num_workers=parallel.num_workers, use_gpu=parallel.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            # A name of its own for each start: a run resumes from its own checkpoints, not from Ray's list of them,
            # which a driver that is killed in a bad moment leaves broken
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=plan.state_uri,
            failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )


def root_cause(error: BaseException) -> str:
    """Find what went wrong first inside Ray's wrappers: when one worker fails, the others only lose touch with it.

    Args:
        error: From `fit`.

    Returns:
        Kind and message of the worker's own error, and which worker it was.
    """
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    causes = {worker: _innermost(failure) for worker, failure in failures.items()}
    for worker, cause in causes.items():
        if not any(word in str(cause) for word in _CONSEQUENCES):
            return f"{type(cause).__name__}: {cause} (worker {worker})"
    cause = next(iter(causes.values()), _innermost(error))
    return f"{type(cause).__name__}: {cause}"


def _innermost(error: BaseException) -> BaseException:
    while isinstance(getattr(error, "cause", None), BaseException):
        error = error.cause  # type: ignore[attr-defined]
    return error


def _work(config: dict[str, Any]) -> None:
    """What each worker does; what only workers need is imported there, for it takes seconds."""
    from qwen_core.train.worker import work

    work(config["plan"], config["started"])
