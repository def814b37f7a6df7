"""The loop that all training stages share, as it runs in each Ray Train worker.

    engine ─▶ [resume] ─▶ for each step: validate where due ─▶ micro-batches ─▶ step ─▶ log ─▶ checkpoint where due
                                                                                      └─▶ last validation ─▶ weights

Everything that decides a step (data, learning rate, validation points) is a function of the step's number, so a
resumed run goes on exactly as if it had never stopped. Losses are divided by the count of the whole batch over all
workers and passes, so that accumulation and the number of workers change nothing but rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Optimiser
from qwen_core.data.packed import step_indices
from qwen_core.errors import QwenCoreError
from qwen_core.parallel import make_engine
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.parallel.shard import Shard
from qwen_core.train.distributed import all_sum, rank, world_size
from qwen_core.train.schedule import learning_rate_at, validation_steps
from qwen_core.train.task import Task

Log = Callable[[dict[str, float], int], None]
Save = Callable[["Loop", int], None]


class DivergedError(QwenCoreError):
    """The loss is not a number any more."""


@dataclass
class Loop:
    """One worker's state of a training run.

    Attributes:
        history: What was logged, one mapping with `step` for each event, in order; travels with checkpoints.
    """

    model: torch.nn.Module
    task: Task
    settings: Optimiser
    parallel: Parallel
    seed: int
    history: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0

    def __post_init__(self) -> None:
        settings = self.settings
        self.passes = settings.global_batch_size // (settings.micro_batch_size * world_size())
        self.engine = make_engine(
            self.model,
            zero_stage=self.parallel.zero_stage,
            precision=settings.precision,
            micro_batch_size=settings.micro_batch_size,
            gradient_accumulation_steps=self.passes,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            muon_learning_rate=settings.muon_learning_rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            grad_clip=settings.grad_clip,
            use_gpu=self.parallel.use_gpu,
        )
        self.device = self.engine.device
        self.shard = Shard(rank(), world_size())

    def run(self, first_step: int, log: Log, save: Save) -> None:
        """Train from a step to the end.

        Args:
            first_step: 0, or the step that a checkpoint was taken before.
            log: Called on every worker with figures and their step.
            save: Called on every worker where a checkpoint is due, with the step that comes next.

        Raises:
            DivergedError: The loss is NaN or infinite.
        """
        settings = self.settings
        due = set(validation_steps(settings.max_steps, settings.min_validation_points))
        started, tokens_before = time.monotonic(), self.tokens
        for step in range(first_step, settings.max_steps):
            if step in due:
                paused = time.monotonic()
                self._validate(step, log)
                started += time.monotonic() - paused  # validation is not training speed
            figures = self._step(step)
            done = step + 1
            if done % settings.log_every_steps == 0 or done in (1, settings.max_steps):
                seconds = max(1e-9, time.monotonic() - started)
                figures["train/tokens_per_second"] = (self.tokens - tokens_before) / seconds
                started, tokens_before = time.monotonic(), self.tokens
                self._log(figures, done, log)
            if done % settings.checkpoint_every_steps == 0 and done < settings.max_steps:
                save(self, done)
        self._validate(settings.max_steps, log)

    def forward(self, batch: Batch) -> Tensor:
        """Compute token losses through the engine."""
        tensors = (batch.input_ids, batch.segment_ids, batch.labels)
        placed = [None if tensor is None else tensor.to(self.device) for tensor in tensors]
        return self.engine(placed[0], segment_ids=placed[1], labels=placed[2])  # type: ignore[no-any-return]

    @torch.no_grad()
    def measure(self, batch: Batch) -> Tensor:
        """Compute token losses without gradient; see `task.Measure`."""
        return self.forward(batch).float().cpu()

    def _step(self, step: int) -> dict[str, float]:
        """Take one optimiser step; return its figures."""
        settings = self.settings
        share = learning_rate_at(step, 1.0, settings.warmup_steps, settings.max_steps, settings.min_learning_rate_ratio)
        rate = share * settings.learning_rate
        for group in self.engine.optimizer.param_groups:
            group["lr"] = share * settings.muon_learning_rate if group.get("use_muon") else rate
        indices = step_indices(self.seed, step, settings.global_batch_size, len(self.task))
        mine = indices.reshape(self.passes, world_size(), -1)[:, rank()]
        sums = self._accumulate(mine.tolist())
        loss = sums["loss"] / sums["count"]
        if not math.isfinite(loss):
            raise DivergedError(
                f"the training loss became {loss} at step {step} (learning rate {rate:.3g}). Lower learning_rate, "
                f"lengthen warmup_steps, or look at the data of this step: sequences {indices.tolist()}"
            )
        self.tokens += int(sums["tokens"])
        figures = {
            "train/loss": loss,
            "train/learning_rate": rate,
            "train/grad_norm": float(self.engine.get_global_grad_norm() or 0.0),
            "train/tokens": float(self.tokens),
        }
        reserved = ("loss", "count", "tokens")
        return figures | {f"train/{n}": v / sums["count"] for n, v in sums.items() if n not in reserved}

    def _accumulate(self, micro_batches: Sequence[Sequence[int]]) -> dict[str, float]:
        """Run all passes of a step forward and backward, then let the optimiser step; return sums over all workers."""
        totals: dict[str, Tensor] = {}
        batches = [self.task.batch(indices) for indices in micro_batches]
        count = float(all_sum(torch.tensor(sum(batch.count for batch in batches), dtype=torch.float64)))
        for number, batch in enumerate(batches):
            part = self.task.objective(self.forward(batch), batch)
            self._add(totals, part, batch.tokens)
            # DeepSpeed averages over workers and passes: multiplied back here
            self.engine.backward(part.loss * (world_size() * self.passes) / count)
            self.engine.set_gradient_accumulation_boundary(number == len(micro_batches) - 1)
            self.engine.step()
        names = list(totals)
        summed = all_sum(torch.stack([totals[name].double() for name in names]))
        return dict(zip(names, summed.tolist(), strict=True)) | {"count": count}

    @staticmethod
    def _add(totals: dict[str, Tensor], part: Objective, tokens: int) -> None:
        figures = {"loss": part.loss.detach().cpu(), "tokens": torch.tensor(tokens)}
        for name, value in (figures | {n: v.cpu() for n, v in part.figures.items()}).items():
            totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64)) + value.double()

    def _validate(self, step: int, log: Log) -> None:
        self.engine.eval()
        figures = self.task.validate(self)
        self.engine.train()
        self._log({f"validation/{name}": value for name, value in figures.items()}, step, log)

    def _log(self, figures: dict[str, float], step: int, log: Log) -> None:
        self.history.append({"step": float(step), **figures})
        log(figures, step)


def summarise(history: Sequence[dict[str, float]], settings: Optimiser) -> dict[str, float]:
    """Take a run's closing figures from its history.

    Args:
        history: As the loop kept it.
        settings: The stage's section.

    Returns:
        `steps`, `first_...` and `last_...` of each curve that matters, `tokens_per_second` (median).
    """
    figures: dict[str, float] = {"steps": float(settings.max_steps)}
    curves: dict[str, list[float]] = {}
    for event in history:
        for name, value in event.items():
            curves.setdefault(name, []).append(value)
    for name in ("train/loss", "validation/loss", "validation/bits_per_byte", "validation/preference_accuracy"):
        if name in curves:
            title = name.replace("train/", "train_").replace("validation/", "validation_")
            figures[f"first_{title}"], figures[f"last_{title}"] = curves[name][0], curves[name][-1]
    speeds = sorted(curves.get("train/tokens_per_second", [0.0]))
    figures["tokens_per_second"] = speeds[len(speeds) // 2]
    return figures
