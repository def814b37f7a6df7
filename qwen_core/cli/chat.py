"""`qwen-core chat`: talk to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qwen_core.artifacts import Store, local_copy
from qwen_core.cli.options import home_option, model_option, run_model_option
from qwen_core.errors import ArtifactError

if TYPE_CHECKING:
    from qwen_core.chat import ChatModel
    from qwen_core.model import Sampling


@click.command()
@click.argument("question", required=False)
@model_option
@run_model_option
@click.option("--system", default=None, help="System message.")
@click.option("--temperature", default=0.7, show_default=True, type=click.FloatRange(min=0), help="0 is deterministic.")
@click.option("--top-p", default=0.8, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option("--top-k", default=20, show_default=True, type=click.IntRange(min=0), help="0: among all tokens.")
@click.option("--repetition-penalty", default=1.2, show_default=True, type=click.FloatRange(min=1))
@click.option("--max-new-tokens", default=160, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@home_option
def chat(
    question: str | None,
    named: str | None,
    run_key: str | None,
    system: str | None,
    temperature: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
    max_new_tokens: int,
    seed: int,
    home: str | None,
) -> None:
    """Talk to a model; with QUESTION, answer it and end.

    \b
    Examples:
      qwen-core chat
      qwen-core chat "为什么天空是蓝色的？"
      qwen-core chat --model path/to/model --temperature 0
    """
    from qwen_core.chat import ChatModel
    from qwen_core.model import Sampling

    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
    folder = model_folder_of(home, named, run_key)
    model = ChatModel(folder)
    opening = [{"role": "system", "content": system}] if system else []
    if question:
        asked = [*opening, {"role": "user", "content": question}]
        _say(model, asked, max_new_tokens, sampling)
        return
    click.echo(f"model {folder}\nAn empty line or Ctrl-D ends; /new forgets the conversation.")
    messages = list(opening)
    while True:
        try:
            said = click.prompt("you", prompt_suffix=" > ", default="", show_default=False).strip()
        except click.Abort:
            return
        if not said:
            return
        if said == "/new":
            messages = list(opening)
            continue
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": _say(model, messages, max_new_tokens, sampling)})
        click.echo()


def _say(model: ChatModel, messages: list[dict[str, str]], max_new_tokens: int, sampling: Sampling) -> str:
    """Print an answer as it grows; return it."""
    pieces = []
    for piece in model.answer(messages, max_new_tokens, sampling):
        click.echo(piece, nl=False)
        pieces.append(piece)
    click.echo()
    return "".join(pieces)


def model_folder_of(home: str | None, named: str | None, run_key: str | None) -> str:
    """Find a model folder: the one named, or the most aligned one of a run or of all runs, the newest of these.

    Args:
        home: State folder of the platform.
        named: As `find_model` takes it; a folder needs no platform.
        run_key: Of a pipeline run, where none is named.

    Returns:
        The folder, on this machine.

    Raises:
        ArtifactError: There is no model.
    """
    from qwen_core.jobs.found import ALIGNED_FIRST, find_model
    from qwen_core.platform import Platform

    if named and Path(named).is_dir():
        return named
    platform = Platform(home)
    store = Store(platform.store_root)
    if named:
        return find_model(named, store, platform.tracking_uri).folder
    run = store.of_run(run_key) if run_key else None
    for stage in ALIGNED_FIRST:
        made = store.manifests(stage) if run is None else filter(None, [run.get(stage)])
        newest = max(made, key=lambda manifest: manifest.created_at, default=None)
        if newest is not None:
            return local_copy(newest.path("model"))
    where = f"run '{run_key}'" if run_key else store.root
    raise ArtifactError(f"no model in {where}. Make one with: qwen-core run (or name one: --model)")
