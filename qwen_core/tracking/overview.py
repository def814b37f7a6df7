"""What one sees on opening a pipeline run in MLflow: a note that says what it made and how it differs from its rival.

manifests of the run, of its rival ─▶ compare ─▶ note, tables/comparison.json, plots/comparison.png of the parent run
model that was registered          ─▶ its figures on each held-out set, by dataset, at the logged model

The rival is the champion that the gate compared with, else the pipeline run of this recipe before this one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from qwen_core.artifacts import Manifest, Store
from qwen_core.errors import QwenCoreError
from qwen_core.stages import STAGES
from qwen_core.tracking import writes
from qwen_core.tracking.compare import compare
from qwen_core.tracking.compare_figure import comparison_figure
from qwen_core.tracking.compare_text import changes, in_a_line, number, to_columns, to_markdown
from qwen_core.tracking.comparison import Comparison, Side
from qwen_core.tracking.listed import pipeline_runs
from qwen_core.tracking.named import Names
from qwen_core.tracking.opening import RUN_KEY_TAG, STAGE_TAG, Ids
from qwen_core.tracking.outbox import in_short
from qwen_core.tracking.stage_run import StageRun

MODEL_TAG = "qwen_core.model"
DECISION_TAG = "qwen_core.decision"
RIVAL_TAG = "qwen_core.compared_with"
CHANGE_TAG = "qwen_core.change"
_MOST_NOTE_CHARS = 7500  # MLflow's own limit of a tag is 8,000
_MOST_LOOKED_AT = 50
_MODEL = "dpo"
_SETS = {"bits_per_byte": "pack", "answer_loss": "instruct", "preference_accuracy": "preference"}
logger = logging.getLogger(__name__)


def log_overview(run: StageRun, store: Store, run_key: str) -> None:
    """Tell on the parent run what a pipeline run made so far, and how it differs from its rival.

    Args:
        run: Of any stage of the pipeline run.
        store: Where its artifacts lie.
        run_key: The pipeline run.

    MLflow that is away leaves the page as it was; `qwen-core compare` gives the same answer at any time.
    """
    manifests = store.of_run(run_key)
    try:
        names = Names(store, run.tracking_uri)
        # without aliases, which move on while the note stays
        own = replace(names.side(run_key), aliases=())
        rival = _rival(run, store, names, manifests)
    except Exception as error:
        logger.warning("the overview of run '%s' is left as it was: %s", run_key, in_short(error))
        return
    found = compare(replace(rival, aliases=()), own, store) if rival else None
    tags = _tags(manifests, rival) | ({CHANGE_TAG: changes(found)} if found else {})
    run.write(writes.tags(tags | {MLFLOW_RUN_NOTE: note(own, found)}, "parent"))
    if found is not None and rival is not None:
        _log_changed_params(run, found, rival)
        run.log_table(to_columns(found), "comparison", "parent")
        run.log_figure(comparison_figure(found), "plots/comparison.png", "parent")
        run.write(writes.text(to_markdown(found), "comparison.md", "parent"))


def _log_changed_params(run: StageRun, found: Comparison, rival: Side) -> None:
    """Give both runs the params that differ: one that has its default would stand empty on the comparison page."""
    run.write(writes.params({one.key: one.b for one in found.recipe if one.b is not None}, "parent"))
    theirs = {one.key: one.a for one in found.recipe if one.a is not None}
    query = f"tags.`{RUN_KEY_TAG}` = '{rival.run_key}' and tags.`{STAGE_TAG}` = 'pipeline'"
    try:
        for other in run.client.search_runs([run.ids().experiment], query):
            writes.apply(run.client, Ids(other.info.run_id, "", ""), writes.missing_params(theirs))
    except Exception as error:
        logger.warning("run '%s' is left without the params that differ: %s", rival.run_key, in_short(error))


def log_model_figures(run: StageRun, manifests: Mapping[str, Manifest]) -> None:
    """Join a registered model to the data that it was made of and measured on, as MLflow's model pages show it.

    Args:
        run: Of `release`.
        manifests: Of the pipeline run, with `release` and `evaluate`.
    """
    told, figures = manifests["release"].details, manifests["evaluate"].metrics
    found = []
    for name, value in figures.items():
        model, _, measure = name.partition(".")
        stage = _SETS.get(measure.split("/")[0])
        if model == _MODEL and stage is not None and stage in manifests and "/source/" not in measure:
            dataset = manifests[stage]
            found.append({"name": measure, "value": value, "dataset": stage, "digest": dataset.fingerprint})
    made = manifests.get(_MODEL)
    tags = {RUN_KEY_TAG: manifests["release"].run_key} | ({"qwen_core.manifest": made.uri} if made else {})
    run.write(writes.model(told["name"], str(told["version"]), found, tags))


def note(own: Side, found: Comparison | None) -> str:
    """Write the note of a pipeline run.

    Args:
        own: The run.
        found: How it differs from its rival, if it has one.

    Returns:
        Markdown, no longer than MLflow takes.
    """
    lines = [*([in_a_line(found), ""] if found else []), _summary(own), ""]  # the page shows these, and folds the rest
    lines += [to_markdown(found)] if found else ["Nothing to compare with: the first run of this recipe.", ""]
    if found:
        lines.append(
            f"`qwen-core compare {found.a.split(' ')[0]} {own.run_key}` tells all; table and figure: Artifacts."
        )
    text = "\n".join(lines)
    if len(text) <= _MOST_NOTE_CHARS:
        return text
    cut = text[:_MOST_NOTE_CHARS].rpartition("\n")[0]
    return f"{cut}\n\n… the rest is in artifact comparison.md"


def _summary(own: Side) -> str:
    """Say in a line what there is."""
    manifests, told = own.manifests, []
    for stage in ("dedup", "filter", "ingest"):
        if stage in manifests:
            told.append(f"**{manifests[stage].rows:,}** documents")
            break
    if "pack" in manifests:
        told.append(f"**{manifests['pack'].tokens:,}** tokens for training")
    if "evaluate" in manifests and f"{_MODEL}.bits_per_byte" in manifests["evaluate"].metrics:
        told.append(f"**{number(manifests['evaluate'].metrics[f'{_MODEL}.bits_per_byte'])}** bits per byte")
    done = f"{len(manifests)} of {len(STAGES)} stages"
    if "release" in manifests:
        decision = manifests["release"].details
        told.append(f"{decision.get('decision', 'registered').replace('_', ' ')}: {decision.get('reason', '')}")
    return f"{done}; " + "; ".join(told) if told else done


def _tags(manifests: Mapping[str, Manifest], rival: Side | None) -> dict[str, str]:
    told = {}
    if "release" in manifests:
        details = manifests["release"].details
        told = {MODEL_TAG: f"{details['name']}/{details['version']}", DECISION_TAG: details.get("decision", "")}
    return told | ({RIVAL_TAG: rival.run_key} if rival else {})


def _rival(run: StageRun, store: Store, names: Names, manifests: dict[str, Manifest]) -> Side | None:
    """Find the run to compare with; a run whose artifacts are gone is passed over."""
    details = manifests["release"].details if "release" in manifests else {}
    if details.get("champion"):
        try:
            return names.side(f"{details['name']}/{details['champion']}")
        except QwenCoreError:
            pass  # registered elsewhere, or deleted
    last = next(reversed(manifests), None)
    client, ids = run.client, run.ids()
    query = f"tags.`{STAGE_TAG}` = 'pipeline'"
    started = client.get_run(ids.parent).info.start_time
    for place, other in enumerate(pipeline_runs(client, [ids.experiment], query)):
        if place >= _MOST_LOOKED_AT:
            break
        if other.info.run_id == ids.parent or other.info.start_time > started:
            continue
        key = other.data.tags.get(RUN_KEY_TAG, "")
        if last in store.of_run(key):
            return names.side(key)
    return None
