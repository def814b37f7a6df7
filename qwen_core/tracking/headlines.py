"""What a pipeline run's own page and MLflow's comparison page show: what tells two runs apart, and nothing else.

    params    only those that differ from the recipe's defaults, or from the run that it is compared with
    metrics   data/...     documents, dropped by stage and reason, tokens by language and source, bytes per token
              result/...   of the last model on held-out data; of the models before it with their name
              time/...     seconds of each stage

The page shows a dozen rows and scrolls through the rest; everything is on the stages' runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from qwen_core.config import Recipe

_CORPUS = ("ingest", "filter", "dedup")
_CLOSING = ("last_validation_loss", "last_validation_bits_per_byte")
_LAST_MODEL = "dpo"


def headline_params(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the params that somebody set.

    Args:
        flat: Values by dotted name.

    Returns:
        Those that differ from the defaults, and the seed.
    """
    defaults = _defaults()
    return {name: value for name, value in flat.items() if name == "seed" or defaults.get(name, _UNKNOWN) != value}


_UNKNOWN = object()


@functools.cache
def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(tree: Mapping[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping) and value:
                walk(value, f"{prefix}{name}.")
            else:
                found[f"{prefix}{name}"] = value

    walk(Recipe().model_dump(mode="json"), "")
    return found


def headline_metrics(stage: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Choose a stage's figures that tell runs apart, and name them by what they are about.

    Args:
        stage: The stage's word.
        figures: As the stage closes with: `rows`, `tokens`, `seconds`, `dropped.<reason>` and its own metrics.

    Returns:
        Values by name.
    """
    return dict(_headlines(stage, figures))


def _headlines(stage: str, figures: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    if stage in _CORPUS:
        yield from _of_corpus(stage, figures)
    elif stage == "tokenizer":
        yield from _renamed(figures, "bytes_per_token", "data/bytes_per_token")
    elif stage == "pack":
        yield from _renamed(figures, "mix_tokens", "data/tokens")
        yield from _renamed(figures, "tokens", "data/tokens")
    elif stage == "evaluate":
        yield from _of_models(figures)
    else:
        for name in _CLOSING:
            if name in figures:
                yield f"result/{stage}_{name.removeprefix('last_')}", figures[name]
    if "seconds" in figures:
        yield f"time/{stage}_seconds", figures["seconds"]


def _of_corpus(stage: str, figures: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    yield from _renamed(figures, "rows", "data/documents")  # the last stage's stays
    yield from _renamed(figures, "text_bytes", "data/text_bytes")
    if stage == "ingest":
        yield from _renamed(figures, "files", "data/source_files")
    for name, count in figures.items():
        if name.startswith("dropped."):
            yield f"data/dropped/{stage}/{name.removeprefix('dropped.')}", count


def _of_models(figures: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        model, _, measure = name.partition(".")
        if not measure or "/source/" in measure:
            continue
        yield (
            f"result/{measure.replace('/language/', '/')}" if model == _LAST_MODEL else f"result/{model}/{measure}",
            value,
        )


def _renamed(figures: Mapping[str, float], old: str, new: str) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if name == old or name.startswith(f"{old}/"):
            yield new + name[len(old) :], value
