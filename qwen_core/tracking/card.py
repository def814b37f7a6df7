"""A model's card and its release notes, as Markdown, in English or Chinese.

    facts, rows of the gate ─▶ front matter (Hugging Face's), what it is, data, training, evaluation, limits, use
                            └─▶ notes: what changed since the champion: data, recipe, results

The headings follow model cards (Mitchell et al., 2019) and data statements (Bender and Friedman, 2018), shortened.
Everything told is read off manifests; what nobody has told is left out, or said to be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen_core.tracking.card_words import WORDS

Rows = Sequence[Mapping[str, Any]]
_MOST_ROWS = 30


@dataclass(frozen=True)
class Facts:
    """What a card tells.

    Attributes:
        name: The registered model.
        run_key: The pipeline run that made it.
        made_on: Date, `YYYY-MM-DD`.
        description: The recipe's.
        recipe: The recipe's name.
        architecture: Figures of the architecture by Hugging Face's names.
        parameters: How many; 0 where unknown.
        languages: Share of the training tokens by language.
        sources: Rows `source`, `language`, `documents`, `bytes` of the corpus.
        licences: Of the sources, where they tell any.
        documents: In the corpus.
        tokens: Of one pass over the packed corpus.
        dates: The earliest and the latest that the runs over the data bear.
        funnel: Rows `stage`, `kept`, and `drops` by reason.
        training: Rows `stage`, `start`, `steps`, `tokens`, `loss`.
        metrics: Figures of the evaluation by name.
        tokenizer: What became of the tokenizer, in words.
        licence: The model's.
        intended_use: In words.
        lineage: Rows `stage`, `fingerprint`, `manifest`.
        changes: Lines that tell what changed in data, and in the recipe, since the champion.
        champion: Its version, where there is one.
    """

    name: str
    run_key: str
    made_on: str
    description: str
    recipe: str
    architecture: Mapping[str, Any]
    parameters: int
    languages: Mapping[str, float]
    sources: Rows
    licences: Sequence[str]
    documents: int
    tokens: int
    dates: tuple[str, str]
    funnel: Rows
    training: Rows
    metrics: Mapping[str, float]
    tokenizer: str
    licence: str | None
    intended_use: str | None
    lineage: Rows
    changes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    champion: str | None = None


def model_card(facts: Facts, checks: Rows, language: str = "en") -> str:
    """Write the card.

    Args:
        facts: What it tells.
        checks: Rows of the gate: `name`, `champion`, `challenger`, `limit`, `verdict`, `reason`.
        language: `en` or `zh`.

    Returns:
        Markdown with front matter as Hugging Face's hub reads it.
    """
    say = WORDS[language]
    parts = [
        _front_matter(facts),
        f"# {facts.name}\n\n{facts.description}".rstrip(),
        _section(say["what"], [_pairs(_what(facts, say))]),
        _section(say["use_for"], [facts.intended_use or say["use_unknown"]]),
        _section(say["data"], _data(facts, say)),
        _section(say["training"], [_table(facts.training, say), f"{say['tokenizer']}: {facts.tokenizer}"]),
        _section(say["evaluation"], [_checks(facts, checks, say), say["evaluation_note"]]),
        _section(say["limits"], [say["limits_text"]]),
        _section(say["lineage"], [_table(facts.lineage, say)]),
        _section(say["usage"], [_USAGE.format(name=facts.name)]),
    ]
    return "\n\n".join(parts) + "\n"


def release_notes(facts: Facts, checks: Rows, verdict: str, language: str = "en") -> str:
    """Write the release notes.

    Args:
        facts: What they tell.
        checks: Rows of the gate.
        verdict: Its decision, in words.
        language: `en` or `zh`.

    Returns:
        Markdown.
    """
    say = WORDS[language]
    since = say["since"].format(version=facts.champion) if facts.champion else say["first"]
    parts = [f"## {say['notes']}: {facts.run_key}", f"{since} {say['gate']}: {verdict}."]
    for kind in ("data", "recipe"):
        lines = facts.changes.get(kind, ())
        told = "\n".join(f"- {line}" for line in lines) or f"- {say['nothing_changed']}"
        if facts.champion:
            parts.append(f"### {say[f'changed_{kind}']}\n\n{told}")
    parts.append(f"### {say['results']}\n\n{_checks(facts, checks, say)}")
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> str:
    """Write what the hub reads; YAML takes JSON's strings and lists."""
    spoken = [name for name in facts.languages if len(name) in (2, 3)]  # und and code are none of the hub's languages
    lines = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        f"model_name: {json.dumps(facts.name, ensure_ascii=False)}",
        f"tags: {json.dumps(['qwen-core', facts.recipe], ensure_ascii=False)}",
    ]
    lines += [f"language: {json.dumps([one for one in spoken if one != 'und'])}"] if spoken else []
    lines += [f"license: {json.dumps(facts.licence, ensure_ascii=False)}"] if facts.licence else []
    return "---\n" + "\n".join(lines) + "\n---"


def _what(facts: Facts, say: Mapping[str, str]) -> dict[str, str]:
    told = {say["made"]: f"{facts.made_on}, {say['run']} {facts.run_key}, {say['recipe']} {facts.recipe}"}
    if facts.parameters:
        told[say["parameters"]] = f"{facts.parameters:,}"
    told |= {
        name.replace("_", " "): f"{value:,}" if isinstance(value, int) else str(value)
        for name, value in facts.architecture.items()
    }
    told[say["licence"]] = facts.licence or say["unknown"]
    return told


def _data(facts: Facts, say: Mapping[str, str]) -> list[str]:
    first, last = facts.dates
    pairs = {
        say["documents"]: f"{facts.documents:,}",
        say["tokens"]: f"{facts.tokens:,}",
        say["read_on"]: first if first == last else f"{first} – {last}",
        say["languages"]: ", ".join(f"{name} {share:.1%}" for name, share in facts.languages.items()),
        say["licences"]: ", ".join(facts.licences) or say["licences_unknown"],
    }
    return [_pairs(pairs), _table(facts.sources[:_MOST_ROWS], say), say["funnel"], _table(facts.funnel, say)]


def _checks(facts: Facts, checks: Rows, say: Mapping[str, str]) -> str:
    theirs = f"{say['champion']} {facts.champion}" if facts.champion else say["champion"]
    rows = [
        {
            say["figure"]: check["name"],
            theirs: _number(check["champion"]),
            say["challenger"]: _number(check["challenger"]),
            say["limit"]: _number(check["limit"]),
            say["verdict"]: say[check["verdict"]],
        }
        for check in checks
    ]
    return _table(rows, {})


def _section(title: str, blocks: Sequence[str]) -> str:
    return "\n\n".join([f"## {title}", *(block for block in blocks if block)])


def _pairs(values: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items())])


def _table(rows: Rows, say: Mapping[str, str]) -> str:
    if not rows:
        return ""
    names = list(rows[0])
    lines = ["| " + " | ".join(say.get(f"column_{name}", name) for name in names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """Write a value into a cell; names of sources come from outside and may hold anything."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {count:,}" for name, count in value.items())
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


_USAGE = """```python
import mlflow

model = mlflow.pyfunc.load_model("models:/{name}@champion")
model.predict([{{"role": "user", "content": "..."}}])
```

```
qwen-core chat --model models:/{name}@champion
qwen-core export --model models:/{name}@champion -o {name}
```"""
