"""What the operator knows of a Ray job: how it is asked for, its state, its name, and what its log tells."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from qwen_core.errors import RayJobError, RecipeError

MOST_RESULT_BYTES = 16_384
"""A result is for XCom, which lies in Airflow's database: names and figures, no data."""

RUN_STARTED = "airflow_run_started"
"""Metadata of a job: which life of the DAG run it belongs to. A run that is cleared as a whole, or deleted and made
again under its old id, is another life."""

_WORKING_DIR_SCHEMES = ("https", "s3", "gs", "azure", "abfss", "hdfs", "file")
_MANIFEST = re.compile(r"^qwen-core manifest: (\S+)\s*$", re.MULTILINE)
_RESULT = re.compile(r"^qwen-core result:(.*)$", re.MULTILINE)


class RayUnreachableError(RayJobError):
    """Ray's dashboard does not answer, or not as one; it may come back."""


class RayTokenError(RayJobError):
    """Ray refuses the token. A retry cannot help."""


@dataclass(frozen=True)
class RayJobStatus:
    """A job's state.

    Attributes:
        state: Ray's word: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED; or ours: LOST when the cluster knows no such
            job, TIMEOUT when its time was over, UNREACHABLE when Ray was away for too long, REFUSED the token.
        message: Ray's explanation.
        exit_code: Of the job's command, where it ended by itself.
        node_id: Of the node where the command runs, and its log lies.
        entrypoint: The command.
        metadata: As it was submitted.
    """

    state: str
    message: str = ""
    exit_code: int | None = None
    node_id: str | None = None
    entrypoint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED", "LOST")

    @property
    def is_successful(self) -> bool:
        """Whether the job did its work."""
        return self.state == "SUCCEEDED"

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> RayJobStatus:
        """Read Ray's answer.

        Args:
            told: A job's details.

        Returns:
            The state.
        """
        return cls(
            told["status"],
            told.get("message") or "",
            told.get("driver_exit_code"),
            told.get("driver_node_id"),
            told.get("entrypoint") or "",
            told.get("metadata") or {},
        )


LOST = RayJobStatus("LOST", "the Ray cluster does not know the job: its head was restarted, or the job was deleted")


@dataclass(frozen=True)
class RayJobRequest:
    """A job to submit.

    Attributes:
        entrypoint: Shell command that the cluster runs.
        runtime_env: Ray's runtime environment.
        metadata: Shown in Ray's dashboard.
        num_cpus: Reserved for the command itself, beside its tasks and actors; so the next four. A command that
            reserves nothing runs on the head node.
        num_gpus: GPUs.
        memory_bytes: Memory.
        resources: Custom resources.
        label_selector: Labels of the node.
    """

    entrypoint: str
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory_bytes: int | None = None
    resources: Mapping[str, float] | None = None
    label_selector: Mapping[str, str] | None = None

    def body(self, submission_id: str) -> dict[str, Any]:
        """Write the request as Ray's Jobs API wants it.

        Args:
            submission_id: Chosen by the caller.

        Returns:
            The JSON body; settings that were not given are left out.
        """
        settings = {
            "entrypoint_num_cpus": self.num_cpus,
            "entrypoint_num_gpus": self.num_gpus,
            "entrypoint_memory": self.memory_bytes,
            "entrypoint_resources": self.resources,
            "entrypoint_label_selector": self.label_selector,
        }
        return {
            "entrypoint": self.entrypoint,
            "submission_id": submission_id,
            "runtime_env": dict(self.runtime_env),
            "metadata": {name: str(value) for name, value in self.metadata.items()},
        } | {name: value for name, value in settings.items() if value is not None}


def runtime_env_of(
    runtime_env: Mapping[str, Any] | None, env_vars: Mapping[str, Any] | None, working_dir: str | None
) -> dict[str, Any]:
    """Join the settings of a job's environment.

    Args:
        runtime_env: Ray's runtime environment.
        env_vars: Environment variables; they win over those of `runtime_env`.
        working_dir: URI of a zip archive; wins over that of `runtime_env`.

    Returns:
        Ray's runtime environment.

    Raises:
        RecipeError: `working_dir` is no URI that the cluster can read.
    """
    joined = dict(runtime_env or {})
    if env_vars:
        joined["env_vars"] = {
            name: str(value) for name, value in {**(joined.get("env_vars") or {}), **env_vars}.items()
        }
    if working_dir:
        joined["working_dir"] = working_dir
    place = joined.get("working_dir")
    if place and urlsplit(place).scheme not in _WORKING_DIR_SCHEMES:
        raise RecipeError(
            f"working_dir '{place}' is no URI that the Ray cluster can read: nothing is uploaded from Airflow. "
            f"Give a zip archive by one of {', '.join(f'{scheme}://' for scheme in _WORKING_DIR_SCHEMES)}"
        )
    return joined


def submission_stem(instance: Any) -> str:
    """Name the jobs of a task instance: readable, and the same after every restart.

    Args:
        instance: Airflow's task instance.

    Returns:
        The submission id without the try's number.
    """
    told = f"{instance.dag_id}/{instance.run_id}/{instance.task_id}/{getattr(instance, 'map_index', -1)}"
    digest = hashlib.sha256(told.encode()).hexdigest()[:10]
    # Ray makes a file name of it, and Airflow lets ids grow to 250 characters.
    return f"{instance.dag_id[:60]}-{instance.task_id[:60]}-{digest}"


def submission_id_of(instance: Any, try_number: int, resubmission: int = 0) -> str:
    """Name one job of a task instance.

    Args:
        instance: Airflow's task instance.
        try_number: Airflow's, from 1.
        resubmission: How often the job was submitted anew within the try.

    Returns:
        The submission id.
    """
    return f"{submission_stem(instance)}-{try_number}" + (f"-{resubmission}" if resubmission else "")


def manifest_of(log: str) -> str | None:
    """Find the manifest that a job told.

    Args:
        log: The end of the job's log.

    Returns:
        Its URI; the last one where several were told, `None` where none was.
    """
    found = _MANIFEST.findall(log)
    return found[-1] if found else None


def result_of(log: str) -> dict[str, Any]:
    """Find the result that a job told.

    Args:
        log: The end of the job's log.

    Returns:
        The result; empty where none was told. The last one where several were told.

    Raises:
        RayJobError: The line holds no JSON mapping, or a too large one.
    """
    found = _RESULT.findall(log)
    if not found:
        return {}
    line = found[-1].strip()
    if len(line.encode()) > MOST_RESULT_BYTES:
        raise RayJobError(
            f"the job's result has {len(line.encode()):,} bytes, {MOST_RESULT_BYTES:,} is the most: "
            f"write data to the store, and tell its URI after 'qwen-core result:'"
        )
    try:
        result = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise RayJobError(
            f"the job's line 'qwen-core result: {line[:200]}' is no JSON ({error}): "
            f"print json.dumps() of a mapping, on one line, when the work is done"
        ) from None
    if not isinstance(result, dict):
        raise RayJobError(f"the job's result must be a JSON mapping, not a {type(result).__name__}: {line[:200]}")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
