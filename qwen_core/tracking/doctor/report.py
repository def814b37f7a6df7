"""What the doctor says: plain data for machines, and a page for people, in English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from qwen_core.tracking.doctor.causes import diagnose
from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.doctor.finding import Diagnosis
from qwen_core.tracking.doctor.names import ROLES
from qwen_core.tracking.doctor.plot import STYLES, plot, show, sparkline
from qwen_core.tracking.doctor.record import Curve, Run

LANGUAGES = ("en", "zh")
_FALL_BACK = {"trl": "trainer", "llamafactory": "trainer"}
_TOOLS = {
    **{"trainer": "transformers", "trl": "TRL", "llamafactory": "LLaMA-Factory", "lightning": "Lightning"},
    **{"keras": "Keras", "megatron": "Megatron"},
}  # the same in every language
_MARKS = {"fault": ("✗", "red"), "warning": ("!", "yellow"), "note": ("i", "cyan")}
_PLAIN_MARKS = {"✗": "x", "✓": "v"}
_SHARES = ("share", "explained", "spread")
_WIDEST_PLOT = 100


@cache
def texts(language: str) -> dict[str, Any]:
    """Read the doctor's texts.

    Args:
        language: `en` or `zh`.

    Returns:
        `words` and `causes`, see the head of `texts/en.yaml`.
    """
    file = resources.files("qwen_core.tracking.doctor") / "texts" / f"{language}.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Checkup:
    """A run that the doctor has seen.

    Attributes:
        evidence: The run and its curves.
        diagnoses: What was found, worst first.
    """

    evidence: Evidence
    diagnoses: list[Diagnosis]

    @property
    def is_healthy(self) -> bool:
        """Tell whether nothing but notes was found."""
        return all(one.finding.severity == "note" for one in self.diagnoses)


def check_up(run: Run, chosen: Mapping[str, str] | None = None) -> Checkup:
    """Look at a run.

    Args:
        run: As read.
        chosen: Role to the name of its metric, where the user said it.

    Returns:
        The outcome.
    """
    evidence = Evidence(run, chosen)
    return Checkup(evidence, diagnose(evidence))


@dataclass(frozen=True)
class Told:
    """A diagnosis in words.

    Attributes:
        title: One line.
        why: What happens.
        evidence: Sentences with the figures of this run.
        change: Where to change it, and what; first for the tool that logged the run.
    """

    title: str
    why: str
    evidence: list[str]
    change: list[tuple[str, str]]


def tell(diagnosis: Diagnosis, evidence: Evidence, language: str) -> Told:
    """Put a diagnosis into words.

    Args:
        diagnosis: What was found.
        evidence: Where.
        language: `en` or `zh`.

    Returns:
        The words.
    """
    text = texts(language)["causes"][diagnosis.cause]
    figures = {"stage": evidence.run.stage or "pretrain", "every": ""}
    figures |= {name: _figure(name, value) for name, value in diagnosis.finding.figures.items()}
    seen = [text["evidence"], *(text["more"][key] for key in diagnosis.finding.more if key in text.get("more", {}))]
    tool = evidence.tool if evidence.tool in text["change"] else _FALL_BACK.get(evidence.tool, "")
    change = [name for name in dict.fromkeys((tool, "any")) if name in text["change"]]
    return Told(
        text["title"],
        text["why"],
        [one.format(**figures) for one in seen],
        [(name, text["change"][name].format(**figures)) for name in change],
    )


def to_json(checkup: Checkup, language: str) -> dict[str, Any]:
    """Turn the outcome into plain JSON.

    Args:
        checkup: The outcome.
        language: Of the sentences.

    Returns:
        `run_id`, `name`, `tool`, `is_healthy`, `metrics` (which plays which role), `curves`, `diagnoses`.
    """
    evidence = checkup.evidence
    diagnoses = []
    for one in checkup.diagnoses:
        told = tell(one, evidence, language)
        diagnoses.append(
            {
                "cause": one.cause,
                "severity": one.finding.severity,
                "confidence": one.finding.confidence,
                "title": told.title,
                "why": told.why,
                "evidence": told.evidence,
                "change": dict(told.change),
                "figures": {name: _plain(value) for name, value in one.finding.figures.items()},
            }
        )
    run = evidence.run
    return {
        "run_id": run.run_id,
        "name": run.name,
        "source": run.source,
        "status": run.status,
        "tool": evidence.tool,
        "is_healthy": checkup.is_healthy,
        "metrics": evidence.roles,
        "curves": {curve.name: {n: _plain(v) for n, v in _facts(curve).items()} for curve in run.curves.values()},
        "diagnoses": diagnoses,
    }


def print_checkup(console: Console, checkup: Checkup, language: str, is_plain: bool = False) -> None:
    """Show the outcome.

    Args:
        console: Where to.
        checkup: The outcome.
        language: `en` or `zh`.
        is_plain: Whether to use ASCII alone in drawings.
    """
    words, evidence = texts(language)["words"], checkup.evidence
    run = evidence.run
    tool = _TOOLS.get(evidence.tool) or words[f"tool_{evidence.tool}"]
    about = [run.run_id, f"{words['logged_by']} {tool}", run.status.lower()]
    console.print(Text(run.name or run.run_id, style="bold"))
    console.print(Text("  ".join(about[not run.name :]), style="dim"))
    console.print(_curves(console, evidence, words, is_plain))
    for line in plot([evidence.train, evidence.validation], min(console.width, _WIDEST_PLOT), is_plain=is_plain):
        console.print(line, highlight=False)
    if not len(evidence.train) and not len(evidence.validation):
        console.print(Text(words["unrecognised"], style="yellow"))
    elif checkup.is_healthy:
        told = words["notes_only"] if checkup.diagnoses else words["healthy"]
        console.print(Text(f"{_mark('✓', is_plain)} {told}", style="bold green"))
    for one in checkup.diagnoses:
        console.print()
        console.print(_told(one, evidence, language, is_plain))


def _curves(console: Console, evidence: Evidence, words: Mapping[str, str], is_plain: bool) -> RenderableType:
    """Lay out a line for each curve that plays a role, with its course."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(words["curve"], no_wrap=console.width >= 100, overflow="fold")
    for title in ("points", "steps", "from_to"):
        table.add_column(words[title], justify="right" if title == "points" else "left", no_wrap=True)
    table.add_column("")
    width = max(8, min(40, console.width - 66))
    for role in ROLES:
        curve = evidence.curve(role)
        if len(curve):
            facts = _facts(curve)
            course = f"{show(facts['first'])}, {show(facts['last'])}" if len(curve) > 1 else show(facts["first"])
            steps = (
                f"{show(facts['from'])} - {show(facts['to'])}" if facts["from"] != facts["to"] else show(facts["to"])
            )
            drawn = sparkline(curve, width, is_plain)
            table.add_row(
                Text(curve.name), f"{len(curve):,}", steps, course, Text(drawn, no_wrap=True), style=_style(role)
            )
    single = [n for n, curve in evidence.run.curves.items() if len(curve) == 1 and n not in evidence.roles.values()]
    single += [name for name in evidence.run.others if not name.startswith("system/")]
    if not single:
        return table
    shown = ", ".join(single[:6]) + (", ..." if len(single) > 6 else "")
    return Group(table, Text(words["summaries"].format(names=shown), style="dim"))


def _style(role: str) -> str:
    return {"train_loss": STYLES[0], "validation_loss": STYLES[1]}.get(role, "")


def _told(diagnosis: Diagnosis, evidence: Evidence, language: str, is_plain: bool) -> RenderableType:
    words, told = texts(language)["words"], tell(diagnosis, evidence, language)
    sign, colour = _MARKS[diagnosis.finding.severity]
    confidence = diagnosis.finding.confidence
    sure = words["sure" if confidence >= 0.9 else "likely" if confidence >= 0.7 else "possible"]
    head = Text.assemble((f"{_mark(sign, is_plain)} {diagnosis.cause}", f"bold {colour}"))
    comma, colon = ("，", "：") if language == "zh" else (", ", ": ")
    head.append(f"  {words[diagnosis.finding.severity]}{comma}{sure}", style="dim")
    body = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    body.add_column(style="dim", no_wrap=True)
    body.add_column(overflow="fold")
    body.add_row(words["evidence"], Text((" " if language == "en" else "").join(told.evidence)))  # names may hold [
    body.add_row(words["why"], Text(told.why))
    for name, text in told.change:
        body.add_row(words["change"], Text.assemble((f"{words[name]}{colon}", "dim"), text))
    return Group(head, Padding(Text(told.title, style="bold"), (0, 0, 0, 2)), Padding(body, (0, 0, 0, 2)))


def _mark(sign: str, is_plain: bool) -> str:
    return _PLAIN_MARKS.get(sign, sign) if is_plain else sign


def _facts(curve: Curve) -> dict[str, float]:
    low, high = float(curve.steps.min()), float(curve.steps.max())
    first, last = float(curve.values[0]), float(curve.values[-1])
    return {"points": len(curve), "from": low, "to": high, "first": first, "last": last}


def _figure(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{float(value):.0%}" if name in _SHARES else show(float(value))


def _plain(value: Any) -> Any:
    """Turn a figure into what JSON can hold: NaN and infinity become words."""
    if isinstance(value, str):
        return value
    number = float(value)
    if not np.isfinite(number):
        return str(number)
    return int(number) if number == round(number) else number
