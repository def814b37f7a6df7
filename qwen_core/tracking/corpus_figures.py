"""What a corpus stage shows in MLflow: the funnel, by reason, source and language; histograms; dropped documents.

plots/    funnel.png  sources.png  languages.png  histograms.png  clusters.png
tables/   funnel.json  dropped.json  clusters.json  keywords.json  contamination.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qwen_core.tracking.folder import FolderRun
    from qwen_core.tracking.runs import StageRun

_FUNNEL_COLUMNS = ("source", "language", "reason", "documents", "bytes")
_DROPPED_COLUMNS = ("reason", "language", "source", "id", "url", "characters", "text")
_MOST_NAMES = 15  # bars that a reader can still tell apart
_REASONS = 8
_KEPT_COLOUR = "C2"
_REASON_COLOURS = ("C3", "C1", "C0", "C4", "C5", "C6", "C8", "C9", "C7")


def log_corpus(
    run: StageRun | FolderRun, stage: str, total: Mapping[str, Any], bins: Mapping[str, Sequence[float]]
) -> None:
    """Log a corpus stage's counts as tables and figures.

    Args:
        run: The stage's.
        stage: Its word, for titles.
        total: The merged tally: `funnel`, `samples`, `histograms`.
        bins: Bounds of each histogram.
    """
    funnel = total["funnel"]
    run.log_table({name: [row[place] for row in funnel] for place, name in enumerate(_FUNNEL_COLUMNS)}, "funnel")
    samples = [{"reason": reason, **one} for reason, found in total["samples"].items() for one in found]
    if samples:
        run.log_table({name: [str(one[name] or "") for one in samples] for name in _DROPPED_COLUMNS}, "dropped")
    if funnel:
        run.log_figure(funnel_figure(funnel, stage), "plots/funnel.png")
        for place, name in enumerate(("sources", "languages")):
            run.log_figure(shares_figure(funnel, place, f"{stage}: {name}"), f"plots/{name}.png")
    if total["histograms"]:
        run.log_figure(histograms_figure(total["histograms"], bins, stage), "plots/histograms.png")


def log_counts(run: StageRun | FolderRun, name: str, columns: Sequence[str], counts: Mapping[Any, int]) -> None:
    """Log counts as a table, where there are any.

    Args:
        run: The stage's.
        name: Of the table.
        columns: Names of what a key holds, and of the count.
        counts: By key; a key of several parts is a tuple.
    """
    rows = [(*(key if isinstance(key, tuple) else (key,)), count) for key, count in counts.items()]
    if rows:
        run.log_table({column: [row[place] for row in rows] for place, column in enumerate(columns)}, name)


def clusters_figure(sizes: Mapping[str, int]) -> Figure:
    """Draw how many clusters of duplicates there are of each size.

    Args:
        sizes: Clusters by the least size of a bin that reaches to twice that size.

    Returns:
        The figure.
    """
    names = [f"{low} to {2 * int(low) - 1}" for low in sizes]
    figure, axes = _figure(1 + 0.35 * len(names))
    axes.barh(names, list(sizes.values()), color="C0")
    axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="clusters", ylabel="documents in a cluster", title="clusters of duplicates")
    axes.margins(x=0.15)
    return figure


def funnel_figure(funnel: Sequence[Sequence[Any]], stage: str) -> Figure:
    """Draw what came in, what each reason took away, and what is left.

    Args:
        funnel: Rows of source, language, reason, documents, bytes.
        stage: For the title.

    Returns:
        The figure; no display is needed.
    """
    counts: Counter[str] = Counter()
    for _, _, reason, documents, _ in funnel:
        counts[reason] += documents
    reasons = [(name, count) for name, count in counts.most_common() if name]
    names = ["came", *(name for name, _ in reasons), "kept"]
    values = [sum(counts.values()), *(count for _, count in reasons), counts[""]]
    figure, axes = _figure(1 + 0.35 * len(names))
    axes.barh(names, values, color=["C0", *["C3"] * len(reasons), _KEPT_COLOUR])
    axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="documents", title=stage)
    axes.margins(x=0.15)
    return figure


def shares_figure(funnel: Sequence[Sequence[Any]], place: int, title: str) -> Figure:
    """Draw for each source or language which share of its documents stayed, and what the main reasons took.

    Args:
        funnel: Rows of source, language, reason, documents, bytes.
        place: 0 for sources, 1 for languages.
        title: Of the figure.

    Returns:
        The figure.
    """
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for row in funnel:
        counts.setdefault(row[place] or "unknown", Counter())[row[2]] += row[3]
        reasons[row[2]] += row[3]
    names = sorted(counts, key=lambda name: (-counts[name].total(), name))[:_MOST_NAMES]
    shown = [name for name, _ in reasons.most_common() if name][:_REASONS]
    figure, axes = _figure(2 + 0.4 * len(names))
    left = [0.0] * len(names)
    colours = iter(_REASON_COLOURS)
    for reason in ["", *shown, None]:
        told = [counts[n].total() - sum(counts[n][r] for r in ["", *shown]) for n in names]
        values = told if reason is None else [counts[name][reason] for name in names]
        shares = [value / max(1, counts[name].total()) for name, value in zip(names, values, strict=True)]
        if any(shares):
            label = "kept" if reason == "" else "other reasons" if reason is None else reason
            axes.barh(names, shares, left=left, label=label, color=_KEPT_COLOUR if reason == "" else next(colours))
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(names)), [f"{name} ({counts[name].total():,})" for name in names], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="share of documents", title=title, xlim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def histograms_figure(
    histograms: Mapping[str, Sequence[int]], bins: Mapping[str, Sequence[float]], stage: str
) -> Figure:
    """Draw the histograms of what was kept.

    Args:
        histograms: Counts, by name.
        bins: Bounds by name, one more than there are counts.
        stage: For the title.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(histograms), 3), layout="constrained")
    all_axes = figure.subplots(1, len(histograms), squeeze=False)[0]
    for axes, (name, counts) in zip(all_axes, histograms.items(), strict=True):
        bounds = bins[name]
        places = range(len(counts))
        axes.bar(places, counts, width=0.9, align="edge")
        every = max(1, len(counts) // 5)
        axes.set_xticks(list(places)[::every], [_short(bound) for bound in list(bounds)[:-1:every]], fontsize="small")
        axes.set_title(name.replace("_", " "), fontsize="medium")
    figure.suptitle(f"{stage}: kept documents")
    return figure


def _short(number: float) -> str:
    return f"{number / 1024:.0f}k" if number >= 1024 else f"{number:g}"


def _figure(height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots()
