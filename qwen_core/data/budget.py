"""Budgets of tokens, turned into weights: how often each cell of a corpus is taken to reach them.

    tokens of each cell ─▶ weights ─▶ alpha over languages ─▶ scale to the budgets, none above its cap ─▶ weights

A cell is a language and a source. A budget names a language or a source, so two budgets may meet in a cell: they are
then met in turn until all hold, as in iterative proportional fitting (Deming and Stephan, 1940).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from qwen_core.data.mix import Cell, weight_of
from qwen_core.errors import InputError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_ROUNDS = 200
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Budget:
    """What a mix asks for; see the recipe's section `mix` for the meaning of each."""

    languages: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, float] = field(default_factory=dict)
    alpha: float | None = None
    total_tokens: int | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    max_epochs: float = 4.0
    source_max_epochs: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_given(self) -> bool:
        """Whether sizes matter; else the weights are all there is."""
        return bool(self.total_tokens or self.tokens or self.shares or self.alpha)


@dataclass(frozen=True)
class Mixture:
    """A weight for each cell, and warnings for people: unknown names, budgets that the corpus cannot fill."""

    weights: dict[Cell, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Target:
    """Tokens asked of some cells, [C]."""

    name: str
    members: Bools
    tokens: float


def mixture(sizes: Mapping[Cell, float], budget: Budget) -> Mixture:
    """Work out how often each cell is taken.

    Repeats are capped because data that is seen more than about four times teaches little more (Muennighoff et al.,
    2023). `alpha` is the exponent of XLM-R (Conneau et al., 2020) and mT5 (Xue et al., 2021). Weights that stand in a
    recipe without any budget are obeyed, whatever the cap.

    Args:
        sizes: Tokens of each cell of the corpus, taken once.
        budget: What is asked for.

    Returns:
        The weights; a budget that cannot be filled is filled as far as the cap allows, with a warning.

    Raises:
        InputError: A budget names what the corpus does not hold, the budgets exceed `total_tokens`, or budgets that
            overlap contradict each other.
    """
    cells = sorted(sizes)
    tokens = np.array([sizes[cell] for cell in cells], dtype=np.float64)
    weights = np.array([weight_of(cell, budget.languages, budget.sources) for cell in cells], dtype=np.float64)
    warnings = _unknown_weights(cells, budget)
    if budget.is_given and cells:
        caps = np.array([budget.source_max_epochs.get(cell[1], budget.max_epochs) for cell in cells])
        total = float(budget.total_tokens or (tokens * weights).sum())
        if budget.alpha is not None:
            weights = weights * _tempered(cells, tokens * weights, budget.alpha)
        targets = _targets(cells, budget, total)
        weights = _fit(tokens, weights, caps, targets)
        missed = _shortages(tokens, weights, caps, targets, budget)
        warnings += missed or _unshared(float((tokens * weights).sum()), total, budget)
    return Mixture(dict(zip(cells, weights.tolist(), strict=True)), tuple(warnings))


def _unknown_weights(cells: Sequence[Cell], budget: Budget) -> list[str]:
    """Warn of weights for what is not there: a recipe may serve several corpora, so it is no fault."""
    warnings = []
    for key, position in (("languages", 0), ("sources", 1), ("source_max_epochs", 1)):
        known = sorted({cell[position] for cell in cells})
        for name in getattr(budget, key):
            if name not in known:
                warnings.append(f"mix.{key} names '{name}', {_lacking(name, known)}")
    return warnings


def _lacking(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"which the corpus does not hold; {hint}It holds: {', '.join(known)}"


def _tempered(cells: Sequence[Cell], tokens: Floats, alpha: float) -> Floats:
    """Factors that bring languages of n tokens to shares in proportion to n^alpha, the sum unchanged."""
    languages = np.array([cell[0] for cell in cells])
    sizes = np.array([tokens[languages == language].sum() for language in languages])
    powers = np.power(sizes, alpha, where=sizes > 0, out=np.zeros_like(sizes))
    whole = sum(powers[np.flatnonzero(languages == language)[0]] for language in sorted(set(languages.tolist())))
    wanted = powers / max(whole, 1e-300) * tokens.sum()
    return np.asarray(np.divide(wanted, sizes, out=np.ones_like(sizes), where=sizes > 0))


def _targets(cells: Sequence[Cell], budget: Budget, total: float) -> list[_Target]:
    """Put all budgets into tokens; what no budget names shares the rest."""
    wanted = [(f"mix.tokens.{name}", name, float(count)) for name, count in budget.tokens.items()]
    wanted += [(f"mix.shares.{name}", name, share * total) for name, share in budget.shares.items()]
    targets = [_Target(key, _members(cells, key, name), tokens) for key, name, tokens in wanted]
    named = np.any([target.members for target in targets], axis=0) if targets else np.zeros(len(cells), dtype=bool)
    if not (budget.total_tokens or budget.shares or budget.alpha):
        return targets  # only some groups have a size: the others keep their weights
    if not _overlap(targets):
        rest = total - sum(target.tokens for target in targets)
        if rest < -_TOLERANCE * total:
            raise InputError(
                f"mix.tokens and mix.shares ask for {total - rest:,.0f} tokens, more than mix.total_tokens "
                f"({total:,.0f}): lower them, or raise the total"
            )
        return targets + ([_Target("the rest of the mix", ~named, max(0.0, rest))] if not named.all() else [])
    return [*targets, _Target("mix.total_tokens", np.ones(len(cells), dtype=bool), total)]


def _members(cells: Sequence[Cell], key: str, name: str) -> Bools:
    """Find the cells that a budget names: a language where there is one of that name, else a source."""
    kind, colon, plain = name.partition(":")
    positions = {"language": (0,), "source": (1,)}.get(kind) if colon else None
    for position in positions or (0, 1):
        found = np.array([cell[position] == (plain if positions else name) for cell in cells])
        if found.any():
            return found
    known = sorted({part for cell in cells for part in cell})
    raise InputError(f"{key} names '{name}', {_lacking(plain if positions else name, known)}")


def _overlap(targets: Sequence[_Target]) -> bool:
    return bool(targets) and bool((np.sum([target.members for target in targets], axis=0) > 1).any())


def _fit(tokens: Floats, weights: Floats, caps: Floats, targets: Sequence[_Target]) -> Floats:
    """Scale each target's cells in turn until all targets hold, or nothing moves any more."""
    weights = np.minimum(weights, caps)
    for _ in range(_ROUNDS):
        before = weights
        for target in targets:
            chosen = target.members
            scaled = weights.copy()
            scaled[chosen] = _scaled(tokens[chosen], weights[chosen], caps[chosen], target.tokens)
            weights = scaled
        if np.allclose(before, weights, rtol=_TOLERANCE, atol=0):
            break
    return weights


def _scaled(tokens: Floats, weights: Floats, caps: Floats, wanted: float) -> Floats:
    """Multiply weights by one factor so that the tokens add up to what is wanted; none rises above its cap."""
    if wanted >= (tokens * np.where(weights > 0, caps, 0.0)).sum():
        return np.where(weights > 0, caps, 0.0)
    is_free = weights > 0
    scaled = np.zeros_like(weights)
    left = wanted
    while is_free.any():
        factor = left / max((tokens * weights)[is_free].sum(), 1e-300)
        is_over = is_free & (weights * factor > caps)
        if not is_over.any():
            scaled[is_free] = weights[is_free] * factor
            break
        scaled[is_over] = caps[is_over]
        left -= float((tokens * caps)[is_over].sum())
        is_free &= ~is_over
    return scaled


def _unshared(got: float, total: float, budget: Budget) -> list[str]:
    """Tell that budgets for all there is leave a part of the total to nobody."""
    if not (budget.total_tokens or budget.shares) or got >= total * 0.999:
        return []
    return [
        f"the mix has {got:,.0f} of {total:,.0f} tokens: mix.tokens and mix.shares name all that the corpus holds, and "
        f"do not add up to the total"
    ]


def _shortages(tokens: Floats, weights: Floats, caps: Floats, targets: Sequence[_Target], budget: Budget) -> list[str]:
    """Tell which targets were missed, and why."""
    warnings = []
    reached: Callable[[_Target], float] = lambda target: float((tokens * weights)[target.members].sum())  # noqa: E731
    for target in targets:
        got = reached(target)
        if abs(got - target.tokens) <= 0.001 * max(1.0, target.tokens):
            continue
        held, most = tokens[target.members].sum(), (tokens * caps)[target.members].sum()
        reason = (
            f"the corpus holds {held:,.0f}, and mix.max_epochs ({budget.max_epochs:g}) allows {most:,.0f}. Give more "
            f"text, raise mix.max_epochs, or lower the budget"
            if most < target.tokens
            else "other budgets for the same documents stand against it"
        )
        warnings.append(f"{target.name} asks for {target.tokens:,.0f} tokens and gets {got:,.0f}: {reason}")
    return warnings
