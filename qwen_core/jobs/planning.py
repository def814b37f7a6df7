"""What a retraining would do: which files are new, what it goes on from, with which settings. Nothing is run.

    recipe, date ─▶ sources ─┐                                ┌─▶ NothingToDoError, with the reason
    records ─▶ corpus so far ─┼─▶ new files ─▶ worth its while?─┤
    registry ─▶ champion ─────┘                                └─▶ overrides for corpus ─▶ pretrain ─▶ align ─▶ release

Data goes on from the newest corpus that was committed, though its model was refused or never finished: what was read
is read for good. A corpus that `retrain.corpus_from` names may have grown by itself: what no retraining has had of it
counts as new, though there is nothing to read. The model goes on from the champion.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from qwen_core.artifacts import Manifest, Store
from qwen_core.config import Recipe
from qwen_core.errors import NothingToDoError
from qwen_core.jobs.base import stage_of
from qwen_core.jobs.line import Line, Record, Standing
from qwen_core.jobs.lineage import HELDOUT_FILE, lineage_of_version
from qwen_core.jobs.news import Asked, News, what_is_new
from qwen_core.tracking.activity import failed_at
from qwen_core.tracking.registry import Registered, find_champion

_FAILED_GRACE_SECONDS = 3600.0  # Airflow tries again meanwhile


def plan(asked: Asked, store: Store, tracking_uri: str, now: datetime.datetime, is_binding: bool = True) -> Record:
    """Plan a retraining.

    Args:
        asked: What is asked for.
        store: Where artifacts and records lie.
        tracking_uri: MLflow server or database.
        now: The time.
        is_binding: Whether a record is written, so that the next plan counts on this one being run.

    Returns:
        The plan; of a run key that was planned before, the same one again. It may name an earlier run that was given
        up, instead of the run key asked for.

    Raises:
        NothingToDoError: Nothing is new, too little of it, or a retraining is under way.
        InputError: The inputs are missing, or cannot be added to the corpus so far.
        ArtifactError: The corpus that the recipe names is not there.
    """
    section = asked.recipe.retrain
    line = Line(store, asked.recipe.release.model_name)
    again = line.find(asked.run_key)
    if again is not None:
        return again
    records = line.records()
    # What is only looked at, on a corpus that is no retraining's, has nothing to do with them
    is_apart = not is_binding and section.corpus_from != "newest"
    last = line.standing(records[0]) if records and not is_apart else None
    if last is not None and not last.is_finished:
        _refuse_while_under_way(last, asked.recipe, tracking_uri, now)
    champion = find_champion(tracking_uri, asked.recipe.release.model_name)
    made = lineage_of_version(store, champion)
    base = trained = corpus_so_far(section.corpus_from, store, (line.standing(one) for one in records), made)
    if section.corpus_from not in ("newest", "nothing", asked.run_key):
        trained = corpus_so_far("newest", store, (line.standing(one) for one in records), made)
    news = what_is_new(asked, base, trained)
    if not news.files and not news.untrained:
        return _taken_up(line, last, news, now, section.max_attempts, is_binding)
    if base and not news.untrained and (news.files < section.min_new_files or news.bytes < section.min_new_bytes):
        raise NothingToDoError(
            f"{_counted(news.files, 'new file')} of {news.bytes:,} bytes wait for more: retrain.min_new_files is "
            f"{section.min_new_files}, retrain.min_new_bytes {section.min_new_bytes:,}"
        )
    result = _result(asked, base, champion, made, news)
    record = Record(
        number=records[0].number + 1 if records else 1,
        run_key=asked.run_key,
        content=news.content,
        planned_at=now,
        result=result,
    )
    other = line.claim(record) if is_binding else None
    if other is not None:
        raise NothingToDoError(f"run '{other.run_key}' was planned at the same moment: it does the same work")
    return record


def corpus_so_far(
    corpus_from: str, store: Store, standings: Iterator[Standing], made: dict[str, Manifest]
) -> Manifest | None:
    """Find the corpus that new files are added to.

    Args:
        corpus_from: The recipe's `retrain.corpus_from`.
        store: Where it lies.
        standings: Retrainings of the model, the newest first.
        made: What the champion was made of: its corpus counts where no retraining has one yet.

    Returns:
        Manifest of its `ingest`; `None` where there is none.

    Raises:
        ArtifactError: The run that is named has ingested nothing.
    """
    if corpus_from == "nothing":
        return None
    if corpus_from != "newest":
        return stage_of(corpus_from, "retrain.corpus_from", "ingest", store)
    return next((one.stages["ingest"] for one in standings if one.has_corpus), made.get("ingest"))


def _refuse_while_under_way(last: Standing, recipe: Recipe, tracking_uri: str, now: datetime.datetime) -> None:
    """Leave a retraining alone that was heard of lately, and did not fail."""
    section, quiet = recipe.retrain, (now - last.last_seen).total_seconds()
    failed = failed_at(tracking_uri, recipe.name, last.record.run_key)
    if failed is not None and failed >= last.record.planned_at:
        if (now - failed).total_seconds() >= min(_FAILED_GRACE_SECONDS, 3600 * section.stale_after_hours):
            return
    elif quiet >= 3600 * section.stale_after_hours:
        return
    raise NothingToDoError(
        f"run '{last.record.run_key}' is under way ({last.next_stage}, {quiet / 3600:.1f} hours ago): what is new "
        f"waits for the next retraining. If nothing of it runs any more: --set retrain.stale_after_hours=0"
    )


def _taken_up(
    line: Line, last: Standing | None, news: News, now: datetime.datetime, max_attempts: int, is_binding: bool
) -> Record:
    """Go on with the last retraining where it was given up; else there is nothing to do."""
    told = f"nothing new: {_counted(news.known, 'file')} in the inputs, all of them in the corpus already"
    if last is None or last.is_finished:
        raise NothingToDoError(told)
    if last.record.attempts >= max_attempts:
        raise NothingToDoError(
            f"{told}; and run '{last.record.run_key}' did not reach its end in {_counted(max_attempts, 'attempt')}: "
            f"see why, then run it again with qwen-core run --run-key {last.record.run_key}, or raise "
            f"retrain.max_attempts"
        )
    reason = f"{told}; run '{last.record.run_key}' was given up ({last.next_stage}) and is gone on with"
    attempts = last.record.attempts + 1
    result = last.record.result | {"reason": reason, "attempt": attempts}
    record = last.record.model_copy(update={"planned_at": now, "attempts": attempts, "result": result})
    if is_binding:
        line.write(record)
    return record


def _result(
    asked: Asked, base: Manifest | None, champion: Registered | None, made: dict[str, Manifest], news: News
) -> dict[str, Any]:
    """Compose the answer of a plan."""
    overrides = list(asked.overrides)
    if news.inputs != asked.recipe.ingest.inputs:
        listed = yaml.safe_dump(list(news.inputs), default_flow_style=True, width=10**9, allow_unicode=True)
        overrides.append(f"ingest.inputs={listed.strip()}")
    if base is not None:
        overrides.append(f"ingest.base={base.uri}")
    start, changes = _model_overrides(asked.recipe, champion, made)
    added = f"{_counted(news.files, 'new file')} ({news.bytes:,} bytes)"
    reason = f"{added} beside {news.known:,} known ones" if base else f"no corpus yet: {added} to read"
    if news.untrained:
        reason += f", {_counted(news.untrained, 'file')} of the corpus in no retraining yet"
    return {
        "recipe": asked.recipe_name,
        "overrides": [*overrides, *changes],
        "run_key": asked.run_key,
        "reason": f"{reason}; {start}",
        "new_files": news.files,
        "new_bytes": news.bytes,
        "known_files": news.known,
        "base": base.uri if base else None,
        "champion": champion.version if champion else None,
        "attempt": 1,
    }


def _model_overrides(recipe: Recipe, champion: Registered | None, made: dict[str, Manifest]) -> tuple[str, list[str]]:
    """Say what the model goes on from, in words and as overrides."""
    section = recipe.retrain
    changes = []
    if "tokenizer" in made:
        changes.append(f"tokenizer.keep_from={made['tokenizer'].uri}")
        changes.append(f"tokenizer.max_drift_ratio={section.max_tokenizer_drift_ratio}")
    if "pack" in made and HELDOUT_FILE in made["pack"].files:
        changes.append(f"pack.heldout_from={made['pack'].uri}")
    if champion is None:
        return "there is no champion: the model is trained from scratch", changes
    if section.init_from == "scratch":
        return "the model is trained from scratch, as retrain.init_from has it", changes
    if "pretrain" not in made:
        return f"what champion version {champion.version} was made of is not in this store: from scratch", changes
    changes += _continued(recipe, made)
    return f"the model goes on from champion version {champion.version}", changes


def _continued(recipe: Recipe, made: dict[str, Manifest]) -> Sequence[str]:
    """List the overrides of a pretraining that goes on.

    It goes on from the champion's pretrained weights, not from the aligned ones: those were bent to conversations, and
    sft and dpo follow again.
    """
    section = recipe.retrain
    found = [
        f"pretrain.init_from={made['pretrain'].uri}",
        "pretrain.if_new_tokenizer=start_anew",
        f"pretrain.continued.steps_ratio={section.steps_ratio}",
        f"pretrain.continued.warmup_ratio={section.warmup_ratio}",
        f"pretrain.continued.learning_rate_ratio={section.learning_rate_ratio}",
    ]
    if (section.new_weight, section.replay_weight) != (1.0, 1.0) and "ingest" in made:
        found.append(f"pack.new_from={made['ingest'].uri}")
        found.append(f"pack.new_weight={section.new_weight}")
        found.append(f"pack.old_weight={section.replay_weight}")
    return found


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count != 1 else "")
