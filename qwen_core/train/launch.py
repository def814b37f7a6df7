"""Starting a training stage: Ray Train starts the workers, each runs the loop, rank 0 writes the model.

job ─▶ check the plan ─▶ TorchTrainer ─▶ worker x N: task, model, engine, resume, loop ─▶ model folder, history
                            └─ checkpoints: <state>/checkpoints/step-..., continued from after any death
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Optimiser
from qwen_core.errors import DivergedError, QwenCoreError, RecipeError
from qwen_core.parallel.plan import Spread, Work, check
from qwen_core.train.nodes import await_nodes

if TYPE_CHECKING:
    from qwen_core.model import CausalLM
    from qwen_core.parallel.layout import Source
    from qwen_core.tracking.folder import FolderRun
    from qwen_core.tracking.runs import StageRun
    from qwen_core.train.alerts import AlertPlan
    from qwen_core.train.lora import Adapters
    from qwen_core.train.task import Task


_RAY_TRAIN = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # each line would be told twice
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one more process to wait for, whose warning nobody here heeds
}
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
        make_model: Builds the model, the same on each worker: whole, or on the meta device, where `source` is given.
        make_task: Builds the stage's side of the loop; gets the model.
        output_uri: Folder for `model/` and `history.jsonl`.
        state_uri: Folder for checkpoints.
        tokenizer_uri: Folder whose files are laid beside the weights.
        eos_token_id: Ends a generation of the finished model.
        pad_token_id: Fills batches.
        run: The stage's MLflow run; without one, or with one that is a folder, nothing goes to MLflow.
        alerts: Where alerts go.
        identity: What a checkpoint must share with this run beside the model, such as fingerprints of its inputs.
        source: Gives the weights of a model on the meta device, one whole parameter at a time.
        learning_rate_scales: Factors on the learning rate by parameter name (muP).
        adapters: What is trained instead of the weights; merged into them at the end, and left in `adapter/` too.
    """

    stage: str
    settings: Optimiser
    parallel: Parallel
    seed: int
    make_model: Callable[[], CausalLM]
    make_task: Callable[[CausalLM], Task]
    output_uri: str
    state_uri: str
    tokenizer_uri: str
    eos_token_id: int
    pad_token_id: int
    run: StageRun | FolderRun | None = None
    alerts: AlertPlan | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None
    learning_rate_scales: Mapping[str, float] = field(default_factory=dict)
    adapters: Adapters | None = None


def check_plan(plan: Plan) -> None:
    """Refuse what cannot run, before anything starts.

    Args:
        plan: What is to be done; Ray is up.

    Raises:
        RecipeError: A rule is broken; with the values, and the nearest plan that breaks none.
    """
    settings, parallel = plan.settings, plan.parallel
    if settings.precision == "fp16" and not parallel.use_gpu:
        raise RecipeError(
            f"{plan.stage}.precision is fp16, which needs a GPU: on a CPU take bf16 (the same memory and speed, no "
            f"loss scale), or set parallel.use_gpu"
        )
    spread = Spread(**{one.name: getattr(parallel, one.name) for one in dataclasses.fields(Spread)})
    names = ("micro_batch_size", "global_batch_size", "batch_ramp_start", "optimizer", "compile")
    work = Work(plan.stage, **{name: getattr(settings, name) for name in names}, has_adapters=bool(plan.adapters))
    config = plan.make_model().config
    timeout_seconds = parallel.wait_for_nodes_seconds
    try:
        check(config, spread, work)
    except RecipeError:  # told at once, with what the cluster lacks now: no node mends it
        timeout_seconds = 0
    check(config, spread, work, await_nodes(plan.stage, _bundle(parallel), parallel.num_workers, timeout_seconds))


def train(plan: Plan) -> None:
    """Run a training stage to its end, from where an earlier attempt stopped; the result lies in its output folder.

    Args:
        plan: What to do.

    Raises:
        RecipeError: The plan cannot run.
        QwenCoreError: Training failed more often than `max_failures`.
        DivergedError: It went astray, and going back to a checkpoint did not help.
    """
    check_plan(plan)
    workers = plan.parallel.num_workers
    print(f"[{plan.stage}] starting {workers} worker{'s' if workers > 1 else ''}", flush=True)
    for name, value in _RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    try:
        result = _trainer(plan).fit()
    except Exception as error:
        raise QwenCoreError(f"{plan.stage} failed: {root_cause(error)}") from error
    # Not in its metrics, which are those of the last checkpoint alone; mypy takes it for the class of Ray Train v1
    astray = result.return_value  # type: ignore[attr-defined]
    if astray:
        raise DivergedError(f"{plan.stage} failed: {astray}")


class _Trainer(TorchTrainer):
    """Ray Train's, whose cleaner it has on a cluster alone: a Ray of one's own ends with its driver.

    Each second the cleaner asks the dashboard, which such a Ray has not, and logs that nothing answers; beside another
    Ray on the machine it gives up with a traceback. Ray 2.60 has no setting for it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        found: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]  # mypy takes it for that of v1
        is_cluster = "RAY_ADDRESS" in os.environ
        return [one for one in found if is_cluster or not isinstance(one, PlacementGroupCleanerCallback)]


def _trainer(plan: Plan) -> TorchTrainer:
    """Describe the workers to Ray Train."""
    parallel, settings = plan.parallel, plan.settings
    backend = "nccl" if parallel.use_gpu else "gloo"
    return _Trainer(
        _work,  # type: ignore[arg-type]
        train_loop_config={"plan": plan, "started": time.time()},
        torch_config=TorchConfig(backend=backend, timeout_s=settings.guards.collective_timeout_seconds),
        scaling_config=ray.train.ScalingConfig(
            num_workers=parallel.num_workers, use_gpu=parallel.use_gpu, resources_per_worker=_bundle(parallel)
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


def _bundle(parallel: Parallel) -> dict[str, float]:
    """What each worker takes of the cluster."""
    return {"CPU": parallel.cpus_per_worker} | ({"GPU": 1.0} if parallel.use_gpu else {})


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


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let a package that is not loaded yet seem not to be installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _work(config: dict[str, Any]) -> str:
    """What each worker does; what only workers need is imported there, for it takes seconds."""
    if not config["plan"].parallel.use_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when DeepSpeed is imported
    with _hidden("mlflow"):  # DeepSpeed 0.19.8 would load it for its autotuner: three seconds and 130 MB
        from qwen_core.train.worker import work

    return work(config["plan"], config["started"])
