"""What each worker of a training stage does, once Ray Train has started it.

task, model ─▶ engine ─▶ resume from the last checkpoint ─▶ loop ─▶ rank 0: model folder, history
"""

from __future__ import annotations

import collections
import dataclasses
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from qwen_core import progress
from qwen_core.artifacts import local_copy, upload
from qwen_core.errors import DivergedError
from qwen_core.model import ModelConfig, save_pretrained
from qwen_core.model.size import flops_per_token
from qwen_core.parallel.engine import Engine
from qwen_core.train.checkpoint import Checkpoints, report_to_ray
from qwen_core.train.distributed import rank, world_size
from qwen_core.train.engines import make_engine
from qwen_core.train.loop import Loop, batches_of
from qwen_core.train.lora import merged, save_adapter
from qwen_core.train.meter import Meter, peak_flops
from qwen_core.train.signals import Signals
from qwen_core.train.watch import plan_event

if TYPE_CHECKING:
    from qwen_core.train.launch import Plan

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def work(plan: Plan, started: float) -> str:
    """Train, from where an earlier attempt stopped, and leave the model; every worker calls.

    Args:
        plan: What to do.
        started: When the driver asked for workers, Unix time.

    Returns:
        Why training went astray, on every worker alike; empty where it went well. No error: Ray Train would start the
        workers anew, and they would do the same again.
    """
    # DeepSpeed calls torch's collectives by names that torch has begun to rename: a line at each step otherwise.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    torch.set_num_threads(plan.parallel.threads_per_worker)
    torch.manual_seed(plan.seed)
    _say(plan, started, "the workers are up, model and data come next")
    model = plan.make_model()
    task = plan.make_task(model)
    config = model.config
    _say(plan, started, "model and data are there, the engine starts")
    engine = make_engine(model, plan.settings, plan.parallel, plan.source, plan.learning_rate_scales)
    del model
    keeper = _Keeper(plan, config)
    length = task.batch([0]).input_ids.shape[1]
    needed_flops, peak = _flops(plan, config, engine, length)
    meter = Meter(sequences=len(task), devices=plan.parallel.num_workers, flops_per_token=needed_flops, peak_flops=peak)
    signals = Signals(
        plan.stage,
        plan.settings.guards,
        meter,
        run=plan.run,
        state_uri=plan.state_uri,
        alerts=plan.alerts,
        rank=rank(),
        world_size=world_size(),
    )
    with signals:
        loop = Loop(engine, task, plan.settings, plan.seed, meter, signals, keeper, _logger(plan, signals))
        needed = batches_of(plan.settings).first_at(plan.settings.max_steps)
        event = plan_event(len(task), needed, plan.settings.guards.max_epochs)
        signals.events.emit_all([event] if event else [])
        state = keeper.restore(engine)
        _say(plan, started, "the engine is up, the first step begins")
        if plan.settings.precision == "bf16" and engine.device.type == "cpu" and not cpu_computes_bf16():
            remedy = f"--set {plan.stage}.precision=fp32"
            _say(plan, started, f"this CPU computes bf16 in software, up to a hundred times slower than fp32: {remedy}")
        diverged = _run(loop, loop.restore(state) if state else 0)
        with meter.pause("export"):
            keeper.finish()
            if not diverged:
                if plan.settings.use_best_checkpoint:
                    keeper.restore_best(engine)
                _finish(plan, config, loop)
    return diverged


def _run(loop: Loop, first_step: int) -> str:
    """Train; return why it went astray, on all workers alike, or nothing."""
    try:
        loop.run(first_step)
    except DivergedError as error:
        return str(error)
    return ""


def _say(plan: Plan, started: float, text: str) -> None:
    """Tell how far the start has come."""
    if rank() == 0:
        print(f"[{plan.stage}] {time.time() - started:.1f} s: {text}", flush=True)


def cpu_computes_bf16() -> bool:
    """Tell whether torch has instructions for bf16 here: on x86 from AVX-512 on; of other CPUs nobody knows."""
    told = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return told is None or platform.machine() not in ("x86_64", "AMD64") or bool(told())


def _flops(plan: Plan, config: ModelConfig, engine: Engine, length: int) -> tuple[float | None, float | None]:
    """Tell what the model needs for a token of a row of so many, and what a device could do; nobody knows a CPU's."""
    peak = plan.settings.guards.peak_flops
    if peak is None and engine.device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name(engine.device), plan.settings.precision)
    return (None, None) if peak is None else (flops_per_token(config, length), peak)


def _logger(plan: Plan, signals: Signals) -> Callable[[dict[str, float], int], None]:
    """Return what takes the loop's figures: on rank 0 the run's log and a line of progress."""
    shown = {"loss": "train/loss", "validation_loss": "validation/loss", "tokens_per_second": "train/tokens_per_second"}

    def log(figures: dict[str, float], step: int) -> None:
        signals.log(figures, step)
        if rank() == 0:
            told = {name: figures[key] for name, key in shown.items() if key in figures}
            progress.report(plan.stage, step, plan.settings.max_steps, "steps", **told)

    return log


class _Keeper(Checkpoints):
    """The checkpoints of a stage's run."""

    def __init__(self, plan: Plan, config: ModelConfig) -> None:
        settings, parallel = plan.settings, plan.parallel
        spread = ("zero_stage", "tensor", "pipeline", "expert", "offload_optimizer", "offload_parameters")
        super().__init__(
            f"{plan.state_uri}/checkpoints",
            # AdamW's moments are no use to Muon: with another optimizer a checkpoint is another run's
            identity={"model": dataclasses.asdict(config), "optimizer": settings.optimizer, **plan.identity},
            plan={name: getattr(parallel, name) for name in spread} | {"precision": settings.precision},
            every_steps=settings.checkpoint_every_steps,
            every_seconds=settings.checkpoint_every_seconds,
            keep_last=settings.keep_checkpoints,
            keep_best=settings.use_best_checkpoint,
            report=report_to_ray,
        )


def _lay_tokenizer(plan: Plan, model_max_length: int, target: Path) -> None:
    """Copy the tokenizer's files beside the weights, and tell in them how long a sequence the model takes."""
    folder = Path(local_copy(plan.tokenizer_uri))
    for file in _TOKENIZER_FILES:
        source = folder / file
        if source.is_file():
            (target / file).write_bytes(source.read_bytes())
    told = target / "tokenizer_config.json"
    if told.is_file():
        config = json.loads(told.read_text(encoding="utf-8")) | {"model_max_length": model_max_length}
        told.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _finish(plan: Plan, config: ModelConfig, loop: Loop) -> None:
    """Write the model folder and the history: rank 0 writes each weight as all workers have brought it together."""
    kept: dict[str, torch.Tensor] = {}
    parameters = loop.engine.parameters()
    if plan.adapters is not None:
        parameters = merged(parameters, plan.adapters, kept)
    if rank() != 0:
        collections.deque(parameters, maxlen=0)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_pretrained(config, parameters, folder / "model", plan.eos_token_id, plan.pad_token_id)
        _lay_tokenizer(plan, config.max_position_embeddings, folder / "model")
        if plan.adapters is not None:
            save_adapter(kept, plan.adapters, folder / "adapter")
        lines = "".join(json.dumps(event) + "\n" for event in loop.history)
        (folder / "history.jsonl").write_text(lines, encoding="utf-8")
        upload(name, plan.output_uri)
