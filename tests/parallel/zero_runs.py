"""What the processes of `test_zero.py` do: train tiny models under ZeRO and tell losses, norms and weights."""

import dataclasses
import tempfile
from dataclasses import dataclass

import torch
import torch.distributed as dist

from qwen_core.model import IGNORE, CausalLM, ModelConfig, initialise
from qwen_core.model.moe import router_of
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.parallel.optimisers import Optimisation
from qwen_core.parallel.zero import Zero, ZeroEngine

DENSE = ModelConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=64,
)
SPARSE = dataclasses.replace(
    DENSE,
    model_type="qwen3_moe",
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=24,
    norm_topk_prob=True,
    router_aux_loss_coef=0.01,
)
STEPS, SEQUENCES, LENGTH = 4, 8, 16


@dataclass(frozen=True)
class Case:
    """One training run."""

    stage: int = 3
    precision: str = "fp32"
    optimizer: str = "adamw"
    micro: int = 2
    config: ModelConfig = DENSE
    offload: str = "none"
    offload_parameters: str = "none"
    refuse: int = -1
    poison: int = -1
    is_meta: bool = False
    passes: tuple[int, ...] = ()
    grad_clip: float = 1.0
    learning_rate: float = 1e-2
    use_gpu: bool = False
    compile: bool = False
    expert: int = 1


def examples(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make the sequences of a step; they count very different numbers of tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, DENSE.vocab_size, (SEQUENCES, LENGTH), generator=generator)
    labels = ids.clone()
    for row, first in enumerate(torch.randint(1, LENGTH, (SEQUENCES,), generator=generator).tolist()):
        labels[row, :first] = IGNORE
    return ids, labels


def batches_of(step: int, micro: int, rank: int, size: int) -> list[Batch]:
    """Deal a step's sequences out as the loop does."""
    ids, labels = examples(step)
    batches = []
    for start in range(rank * micro, SEQUENCES, size * micro):
        cut = slice(start, start + micro)
        count = float((labels[cut] != IGNORE).sum())
        batches.append(Batch(ids[cut], labels[cut], None, count, ids[cut].numel()))
    return batches


def build(case: Case) -> ZeroEngine:
    """Start an engine."""
    whole = CausalLM(case.config)
    initialise(whole, 7)
    model, source = whole, None
    if case.is_meta:
        with torch.device("meta"):
            model = CausalLM(case.config)
        source = whole.state_dict().__getitem__
    router_of(model, "micro_batch")  # balanced over the whole batch, the order of the passes would matter
    if case.compile:
        model.compile_layers()
    return ZeroEngine(
        model,
        zero=Zero(
            case.stage,
            offload_optimizer=case.offload,
            offload_parameters=case.offload_parameters,
            nvme_path=tempfile.gettempdir(),
            expert=case.expert,
        ),
        precision=case.precision,
        optim=Optimisation(name=case.optimizer, learning_rate=case.learning_rate, grad_clip=case.grad_clip),
        use_gpu=case.use_gpu,
        source=source,
    )


def train(case: Case) -> dict:
    """Train some steps."""
    engine = build(case)
    losses, norms, applied, scales = [], [], [], []

    def criterion(token_losses: torch.Tensor, batch: Batch) -> Objective:
        total = token_losses.sum()
        return Objective(total * float("nan") if step == case.poison else total)

    def accept(loss: float) -> bool:
        return step != case.refuse

    for step in range(STEPS):
        batches = batches_of(step, case.micro, engine.shard.rank, engine.shard.size)
        result = engine.step(batches, criterion, rate=1.0, accept=accept)
        losses.append(result.loss)
        norms.append(result.grad_norm)
        applied.append(result.is_applied)
        scales.append(result.loss_scale)
    measured = engine.measure(batches_of(0, 2, 0, 1)[0])
    weights = {name: tensor.float() for name, tensor in engine.parameters()}
    return {
        "losses": losses,
        "norms": norms,
        "applied": applied,
        "scales": scales,
        "measured": measured,
        "weights": weights,
        "figures": engine.report(),
        "masters": masters_moved(engine),
        "kind": type(engine.deepspeed.optimizer).__name__,
        "seconds": result.seconds,
    }


def masters_moved(engine: ZeroEngine) -> float:
    """Tell how far the master weights are from the weights that the model computes with, which are rounded."""
    flats = getattr(engine.deepspeed.optimizer, "single_partition_of_fp32_groups", [])
    return max((float((flat.detach() - flat.detach().bfloat16().float()).abs().max()) for flat in flats), default=0.0)


def skip(case: Case) -> dict:
    """Train without the step that another run refuses."""
    engine = build(case)
    losses = []
    for step in range(STEPS):
        if step != case.refuse:
            batches = batches_of(step, case.micro, engine.shard.rank, engine.shard.size)
            losses.append(engine.step(batches, lambda l, b: Objective(l.sum()), rate=1.0).loss)  # noqa: E741
    return {"losses": losses, "weights": {name: tensor.float() for name, tensor in engine.parameters()}}


def run(cases: list[tuple[str, Case]]) -> list[dict]:
    """Run functions of this module by name, one after the other, in this process group."""
    if any(case.precision == "fp16" for _, case in cases):
        allow_half()
    results = []
    for name, case in cases:
        results.append(globals()[name](case))
        dist.barrier()
    return results


def allow_half() -> None:
    """Let DeepSpeed train in fp16 on a CPU: torch can, slowly, and DeepSpeed asks oneDNN instead."""
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda self: True  # type: ignore[method-assign]
