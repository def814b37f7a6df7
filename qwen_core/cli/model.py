"""`qwen-core model`: how large a model is, what each GPU must hold, how long training takes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from qwen_core.cli.options import set_option
from qwen_core.config import load_recipe
from qwen_core.config.recipe import Recipe
from qwen_core.errors import RecipeError

if TYPE_CHECKING:
    from qwen_core.model.config import ModelConfig
    from qwen_core.model.memory import Memory, Plan

_CARDS = {"80 GB": 80e9, "141 GB": 141e9}
_GB = 1e9
_NOTE = """TP tensor, PP pipeline, EP expert, DP data parallel; a plan fits where a tenth of the card stays free.
recomputed: the total with model.gradient_checkpointing."""


@dataclass(frozen=True)
class _Question:
    """What was asked, resolved."""

    name: str
    config: ModelConfig
    plan: Plan
    tokens: float
    mfu: float
    peak_flops: float


@click.command()
@click.argument("name", default="demo")
@set_option
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs in all [default: the recipe's parallel.num_workers].")
@click.option("--tokens", type=click.FloatRange(min=1), help="Training tokens, such as 1e12 [default: the recipe's].")
@click.option("--mfu", type=click.FloatRange(0, 1, min_open=True), default=0.4, show_default=True, help="Utilisation.")
@click.option(
    "--peak-tflops", type=click.FloatRange(min=1), default=989.0, show_default=True, help="Of one GPU; H100 in bf16."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable: all figures, in bytes and FLOPs.")
def model(
    name: str,
    overrides: tuple[str, ...],
    gpus: int | None,
    tokens: float | None,
    mfu: float,
    peak_tflops: float,
    as_json: bool,
) -> None:
    """Print a model's parameters, memory per GPU, FLOPs per token and days of training.

    NAME is a bundled recipe, a recipe file, or a folder with config.json.

    \b
    Examples:
      qwen-core model qwen2.5-7b
      qwen-core model qwen2.5-72b --tokens 1e12 --gpus 512 --mfu 0.4
      qwen-core model qwen3-8b --set parallel.zero_stage=3 --set pretrain.micro_batch_size=2
    """
    config, recipe = _find(name, overrides)
    plan = _plan(recipe, gpus)
    steps = recipe.pretrain.max_steps * recipe.pretrain.global_batch_size * recipe.pack.max_seq_len
    question = _Question(name, config, plan, tokens or float(steps), mfu, peak_tflops * 1e12)
    if as_json:
        click.echo(json.dumps(_tree(question), indent=1))
    else:
        Console().print(_page(question))


def _find(name: str, overrides: tuple[str, ...]) -> tuple[ModelConfig, Recipe]:
    """Read a model folder or a recipe."""
    from qwen_core.model.config import ModelConfig

    if (Path(name) / "config.json").is_file():
        defaults = ("parallel.use_gpu=true", "parallel.num_workers=8", "parallel.zero_stage=1", "pack.max_seq_len=4096")
        return ModelConfig.from_json(Path(name) / "config.json"), load_recipe("demo", [*defaults, *overrides])
    if Path(name).is_dir():
        raise RecipeError(f"{name} is a folder without config.json; give a model folder, a recipe file or its name")
    recipe = load_recipe(name, overrides)
    vocab_size = recipe.model.vocab_size or recipe.tokenizer.vocab_size
    return ModelConfig(vocab_size=vocab_size, **recipe.model.architecture()), recipe


def _plan(recipe: Recipe, gpus: int | None) -> Plan:
    """Take the layout from a recipe."""
    from qwen_core.model.memory import Plan

    spread, batch = recipe.parallel, recipe.pretrain
    total = gpus or spread.num_workers
    together = spread.tensor * spread.pipeline
    if total % together:
        raise RecipeError(
            f"{total} GPUs do not divide into groups of parallel.tensor x parallel.pipeline = {spread.tensor} x "
            f"{spread.pipeline}; give a multiple of {together} as --gpus"
        )
    return Plan(
        gpus=total,
        zero_stage=spread.zero_stage,
        tensor=spread.tensor,
        pipeline=spread.pipeline,
        expert=spread.expert,
        sequence_parallel=spread.sequence_parallel,
        is_half=batch.precision != "fp32",
        micro_batch_size=batch.micro_batch_size,
        seq_len=recipe.pack.max_seq_len,
        passes=max(1, batch.global_batch_size * together // (batch.micro_batch_size * total)),
        checkpointing=recipe.model.gradient_checkpointing,
        offload_optimizer=spread.offload_optimizer != "none",
        offload_parameters=spread.offload_parameters != "none",
    )


def _speed(question: _Question) -> dict[str, float]:
    """Work out FLOPs, tokens a second and days."""
    from qwen_core.model.size import SECONDS_A_DAY, flops_per_token, tokens_per_second

    config, seq_len = question.config, question.plan.seq_len
    speed = tokens_per_second(config, seq_len, question.plan.gpus, question.peak_flops, question.mfu)
    return {
        "flops_per_token": flops_per_token(config, seq_len),
        "flops_per_token_uncausal": flops_per_token(config, seq_len, is_causal=False),
        "tokens": question.tokens,
        "tokens_per_second": speed,
        "days": question.tokens / speed / SECONDS_A_DAY,
    }


def _tree(question: _Question) -> dict[str, Any]:
    """Give all figures as plain values."""
    from qwen_core.model.memory import alternatives, memory_per_gpu
    from qwen_core.model.size import count_parameters

    config, counts = question.config, count_parameters(question.config)

    def described(plan: Plan) -> dict[str, Any]:
        memory = memory_per_gpu(config, plan)
        fits = {card: memory.fits(size) for card, size in _CARDS.items()}
        return {"plan": asdict(plan), "bytes": asdict(memory) | {"total": memory.total}, "fits": fits}

    return {
        "name": question.name,
        "architecture": asdict(config),
        "parameters": {
            "total": counts.total,
            "active": counts.active,
            "embedding": counts.embedding + counts.head,
            "by_part": counts.by_part(),
        },
        "memory_per_gpu": described(question.plan),
        "alternatives": [described(plan) for plan in alternatives(config, question.plan)],
        "training": _speed(question) | {"gpus": question.plan.gpus, "mfu": question.mfu},
    }


def _page(question: _Question) -> RenderableType:
    """Lay all figures out for a terminal."""
    return Group(
        _architecture(question),
        _parameters(question),
        _memory(question),
        _alternatives(question),
        _training(question),
    )


def _architecture(question: _Question) -> Text:
    config = question.config
    heads = f"{config.num_attention_heads} heads of {config.head_dim}, {config.num_key_value_heads} for keys and values"
    lines = [
        f"{config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size:,}, {heads}",
        f"vocabulary {config.vocab_size:,} ({'tied' if config.tie_word_embeddings else 'untied'}), up to "
        f"{config.max_position_embeddings:,} positions, RoPE theta {config.rope_theta:,.0f}",
    ]
    if config.num_experts:
        shared = config.shared_expert_intermediate_size
        lines.append(
            f"{config.num_experts} experts of width {config.moe_intermediate_size:,}, {config.num_experts_per_tok} for "
            f"each token" + (f", and a shared one of width {shared:,}" if shared else "")
        )
    else:
        lines.append(f"MLP of width {config.intermediate_size:,}")
    return Text.assemble((f"\n{question.name}\n", "bold"), "\n".join(lines))


def _table(*columns: str) -> Table:
    """Begin a table whose first column is text and whose others are numbers."""
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def _titled(title: str, table: Table, note: str = "") -> Group:
    """Put a title above a table, and perhaps a note below; a table's own would be folded to its width."""
    below = [Text(note, style="dim")] if note else []
    return Group(Text(f"\n{title}", style="bold"), table, *below)


def _parameters(question: _Question) -> Group:
    from qwen_core.model.size import count_parameters

    counts = count_parameters(question.config)
    table = _table("part", "count", "share")
    for part, count in counts.by_part().items():
        table.add_row(part.replace("_", " "), f"{count:,}", f"{count / counts.total:.1%}")
    table.add_row("total", f"{counts.total:,}", "", style="bold")
    table.add_row(
        "without embeddings", f"{counts.without_embeddings:,}", f"{counts.without_embeddings / counts.total:.1%}"
    )
    if counts.active != counts.total:
        table.add_row("active for a token", f"{counts.active:,}", f"{counts.active / counts.total:.1%}")
    return _titled("Parameters", table)


def _memory(question: _Question) -> Group:
    from qwen_core.model.memory import memory_per_gpu

    plan = question.plan
    memory = memory_per_gpu(question.config, plan)
    sizes = {"ZeRO": plan.zero_stage, "tensor": plan.tensor, "pipeline": plan.pipeline, "expert": plan.expert}
    told = ", ".join(f"{name} {size}" for name, size in (sizes | {"data": plan.data}).items())
    recomputed = "layers recomputed" if plan.checkpointing else "nothing recomputed"
    title = f"Memory of the fullest GPU: {told}; {plan.micro_batch_size} x {plan.seq_len:,} tokens a pass, {recomputed}"
    table = _table("part", "GB")
    for part, size in asdict(memory).items():
        if size:
            table.add_row(part, f"{size / _GB:,.2f}")
    table.add_row("total", f"{memory.total / _GB:,.2f}", style="bold")
    return _titled(title, table)


def _alternatives(question: _Question) -> Group:
    from qwen_core.model.memory import alternatives, memory_per_gpu

    columns = ("weights", "grads", "optim", "activ", "other", "total GB", *_CARDS)
    more = () if question.plan.checkpointing else ("recomputed GB",)
    table = _table("plan", *columns, *more)
    for plan in alternatives(question.config, question.plan):
        memory = memory_per_gpu(question.config, plan)
        recomputed = memory_per_gpu(question.config, replace(plan, checkpointing=True)).total
        table.add_row(
            _plan_name(plan),
            *(f"{size / _GB:,.1f}" for size in _columns(memory)),
            *("[green]fits[/]" if memory.fits(card) else "[red]no[/]" for card in _CARDS.values()),
            *(f"{recomputed / _GB:,.1f}" for _ in more),
        )
    return _titled(f"Other plans for {question.plan.gpus:,} GPUs", table, _NOTE)


def _columns(memory: Memory) -> tuple[float, ...]:
    kept = (memory.weights, memory.gradients, memory.optimizer, memory.activations)
    return (*kept, memory.total - sum(kept), memory.total)


def _plan_name(plan: Plan) -> str:
    """Put a plan into a few letters."""
    sizes = {"TP": plan.tensor, "PP": plan.pipeline, "EP": plan.expert, "DP": plan.data}
    return " ".join([f"ZeRO-{plan.zero_stage}", *(f"{name}{size}" for name, size in sizes.items() if size > 1)])


def _training(question: _Question) -> Text:
    figures = _speed(question)
    flops, uncausal = figures["flops_per_token"], figures["flops_per_token_uncausal"]
    lines = [
        f"{flops / _GB:,.2f} GFLOPs a token at sequences of {question.plan.seq_len:,}, forward and backward,",
        f"with the half of attention that a causal mask needs ({uncausal / _GB:,.2f} with all of it)",
        f"{figures['tokens_per_second']:,.0f} tokens/s on {question.plan.gpus:,} GPUs of "
        f"{question.peak_flops / 1e12:,.0f} TFLOP/s at an MFU of {question.mfu:.0%}",
        f"{figures['days']:,.1f} days for {figures['tokens'] / _GB:,.1f} billion tokens",
    ]
    return Text.assemble(("\nTraining\n", "bold"), "\n".join(lines), "\n")
