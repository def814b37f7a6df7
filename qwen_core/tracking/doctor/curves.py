"""Reading runs from MLflow: by id, by page, by run key; whole histories; and the runs that continue one another.

The only file of the doctor that loads mlflow, and only when a run lies there.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from qwen_core.errors import InputError, MissingDependencyError, PlatformError
from qwen_core.tracking.doctor.address import Address, address_of
from qwen_core.tracking.doctor.files import read_file
from qwen_core.tracking.doctor.names import is_wanted, role_of
from qwen_core.tracking.doctor.record import Curve, Run, make_curve

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

    _Beside = Callable[[str], list[MlflowRun]]  # id of an experiment to its runs

_MOST_RUNS = 2000  # searched at most for names and siblings
_MOST_SIBLINGS = 8
_MOST_METRICS = 60
_NEAR_SECONDS = 600
_LISTED = 8
_SECONDS, _RETRIES = "30", "1"  # MLflow's own patience with a dead server is many minutes
_OF_ONE_START = ("resume", "output_dir", "run_name", "logging_dir", "checkpoint", "overwrite", "hub_", "_path", "port")


def read_runs(target: str, tracking_uri: str, also: Collection[str] = ()) -> list[Run]:
    """Read what the user named.

    Args:
        target: See `address.py`.
        tracking_uri: MLflow to ask where the target names none.
        also: Metrics to read though their names say nothing.

    Returns:
        The runs, at least one, each with at least one curve.

    Raises:
        InputError: There is no such run, it has no metrics, or several fit and one must be chosen.
        PlatformError: The server does not answer.
        MissingDependencyError: mlflow is not installed.
    """
    address = address_of(target)
    if address.file is not None:
        return [read_file(address.file)]
    where = address.tracking_uri or tracking_uri
    with _mlflow(where) as client:
        chosen = [one for one in _chosen(client, address, where) if one.data.metrics]
        beside = cache(lambda experiment_id: _all(client, experiment_ids=[experiment_id]))
        return [_read(client, one, where, also, beside) for one in chosen]


@contextmanager
def _mlflow(where: str) -> Iterator[MlflowClient]:
    """Give a client that gives up soon, and tell its errors in our words."""
    patience = {"MLFLOW_HTTP_REQUEST_TIMEOUT": _SECONDS, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": _RETRIES}
    kept = {name: os.environ.get(name) for name in (*patience, "MLFLOW_ALLOW_FILE_STORE")}
    os.environ.update({name: value for name, value in patience.items() if kept[name] is None})
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # reading an old folder is no reason to refuse it
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as fault:
        raise MissingDependencyError(
            "runs are read through mlflow, which is not installed: pip install 'qwen-core[train]'. A history.jsonl or "
            "trainer_state.json is read without it"
        ) from fault
    try:
        yield MlflowClient(tracking_uri=where)
    except (MlflowException, OSError) as fault:
        raise PlatformError(
            f"MLflow at {where} does not answer as it should ({_first_line(fault)}). Start it (qwen-core up), or name "
            f"another with --tracking-uri: a server's address, sqlite:///FILE or a folder"
        ) from fault
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _first_line(fault: BaseException) -> str:
    text = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
    if "timed out" in text.lower():
        return f"no answer within {_SECONDS} s"
    if "Max retries" in text or "ConnectionPool" in text:
        return "nothing answers at this address"
    return text if len(text) < 200 else f"{text[:200]}..."


def _chosen(client: MlflowClient, address: Address, where: str) -> list[MlflowRun]:
    if address.run_ids:
        found = [_get(client, run_id, where) for run_id in address.run_ids]
    elif address.name:
        found = _named(client, address.name, where)
    else:
        found = [_only(client, address, where)]
    return [child for one in found for child in _stages(client, one)]


def _get(client: MlflowClient, run_id: str, where: str) -> MlflowRun:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as fault:
        if fault.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise InputError(
            f"no run {run_id} at {where}. Another MLflow is named by --tracking-uri; the newest runs there:"
            f"{_listing(_all(client))}"
        ) from fault


def _named(client: MlflowClient, name: str, where: str) -> list[MlflowRun]:
    """Find the stages of a run key, else runs by their name."""
    quoted = name.replace("'", "")
    for rule in (f"tags.`qwen_core.run_key` = '{quoted}'", f"attributes.run_name = '{quoted}'"):
        found = [one for one in _all(client, rule) if one.data.tags.get("qwen_core.stage") != "pipeline"]
        found = [one for one in found if _has_curve(one)] or found
        if found:
            return found if "run_key" in rule else found[:1]
    runs = _all(client)
    known = {one.data.tags.get("qwen_core.run_key", "") for one in runs} | {one.info.run_name or "" for one in runs}
    near = difflib.get_close_matches(name, sorted(known - {""}), n=3)
    hint = f"the nearest: {', '.join(near)}" if near else f"the newest runs there:{_listing(runs)}"
    raise InputError(f"no run key and no run with the name '{name}' at {where}; {hint}")


def _only(client: MlflowClient, address: Address, where: str) -> MlflowRun:
    """Take the run of a whole store or experiment, where there is but one with metrics."""
    ids = [address.experiment_id] if address.experiment_id else None
    runs = [one for one in _all(client, experiment_ids=ids) if one.data.metrics]
    curves = [one for one in runs if _has_curve(one)] or runs
    if len(curves) == 1:
        return curves[0]
    if not curves:
        raise InputError(f"no run with metrics at {where}: train something first, or name another MLflow")
    raise InputError(f"{len(curves)} runs with metrics at {where}: name one of them by its id:{_listing(curves)}")


def _stages(client: MlflowClient, run: MlflowRun) -> list[MlflowRun]:
    """Take the training stages of a pipeline's parent run; of any other run itself."""
    if run.data.tags.get("qwen_core.stage") != "pipeline" and _has_curve(run):
        return [run]
    rule = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    children = [one for one in _all(client, rule, [run.info.experiment_id]) if _has_curve(one)]
    if children:
        return children[::-1]
    if not run.data.metrics:
        raise InputError(
            f"the run {run.info.run_id} ({run.info.run_name}, {run.info.status}) has no metrics. Either nothing was "
            f"logged yet, or the tool logs elsewhere: for transformers' Trainer set report_to=mlflow and a tracking URI"
        )
    return [run]


def _has_curve(run: MlflowRun) -> bool:
    return bool(_losses(run))


def _all(client: MlflowClient, rule: str = "", experiment_ids: Sequence[str] | None = None) -> list[MlflowRun]:
    """Search all experiments, newest first."""
    ids = list(experiment_ids or [one.experiment_id for one in client.search_experiments()])
    found: list[MlflowRun] = []
    token = None
    while ids and len(found) < _MOST_RUNS:
        page = client.search_runs(ids, rule, order_by=["attributes.start_time DESC"], max_results=200, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    return found


def _listing(runs: Sequence[MlflowRun]) -> str:
    if not runs:
        return " none"
    told = [f"{one.info.run_id}  {_day(one.info.start_time or 0)}  {one.info.run_name}" for one in runs[:_LISTED]]
    more = [f"and {len(runs) - _LISTED} more"] if len(runs) > _LISTED else []
    return "\n  " + "\n  ".join([*told, *more])


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M}"


def _read(client: MlflowClient, run: MlflowRun, where: str, also: Collection[str], beside: _Beside) -> Run:
    names = sorted(run.data.metrics)
    wanted = [name for name in names if is_wanted(name) or name in also]
    if not any(role_of(name) == "validation_loss" for name in wanted):  # then any name may be the one
        wanted += [name for name in names if not name.startswith("system/") and name not in wanted]
    wanted = wanted[:_MOST_METRICS]
    curves = {name: _history(client, run.info.run_id, name) for name in wanted}
    return Run(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        source=where,
        status=run.info.status,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        curves={name: curve for name, curve in curves.items() if len(curve)},
        others=[name for name in names if name not in wanted],
        siblings=_siblings(client, run, where, beside),
        started=(run.info.start_time or math.nan) / 1000,
        ended=(run.info.end_time or math.nan) / 1000,
    )


def _history(client: MlflowClient, run_id: str, name: str) -> Curve:
    """Read a whole metric; the client asks for it in pages."""
    points = client.get_metric_history(run_id, name)
    return make_curve(name, ((one.step, one.value, one.timestamp / 1000) for one in points))


def _siblings(client: MlflowClient, run: MlflowRun, where: str, beside: _Beside) -> list[Run]:
    """Read the losses of runs that could be parts of this one."""
    if not _has_curve(run):
        return []
    others = [
        one
        for one in beside(run.info.experiment_id)
        if one.info.run_id != run.info.run_id and _has_curve(one) and (_is_complement(run, one) or _is_alike(run, one))
    ]
    others.sort(key=lambda one: abs((one.info.start_time or 0) - (run.info.start_time or 0)))
    return [
        Run(
            run_id=one.info.run_id,
            name=one.info.run_name or "",
            source=where,
            params=dict(one.data.params),
            curves={name: _history(client, one.info.run_id, name) for name in _losses(one)[:4]},
        )
        for one in others[:_MOST_SIBLINGS]
    ]


def _losses(run: MlflowRun) -> list[str]:
    return sorted(name for name in run.data.metrics if role_of(name) in ("train_loss", "validation_loss"))


def _is_complement(run: MlflowRun, other: MlflowRun) -> bool:
    """Tell whether one run has the training and the other, of about the same time, the validation."""
    mine, theirs = ({role_of(name) for name in _losses(one)} for one in (run, other))
    if mine & theirs:
        return False
    spans = [(one.info.start_time or 0, one.info.end_time or one.info.start_time or 0) for one in (run, other)]
    apart = max(spans[0][0], spans[1][0]) - min(spans[0][1], spans[1][1])
    return bool(apart < 1000 * _NEAR_SECONDS)


def _is_alike(run: MlflowRun, other: MlflowRun) -> bool:
    """Tell whether two runs have the same settings; where none are logged, their curves must tell."""
    mine, theirs = _settings(run.data.params), _settings(other.data.params)
    same = sum(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
    return bool(same >= 0.95 * max(len(mine), len(theirs)))


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what differs from start to start though the training is the same."""
    return {name: value for name, value in params.items() if not any(part in name for part in _OF_ONE_START)}
