"""What follows the gate in DAG `release`: a person's answer, and the alias `champion`; and the way back.

release: decision promoted ─────────▶ approve is skipped ─▶ promote has nothing left to do
         awaiting_approval ─▶ approve waits ─▶ yes: promote runs its job
                                               no: promote writes it into the registry, and is skipped
         refused ───────────▶ both are skipped, with the reason
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException

from operators.alerts import tell
from operators.ray_hook import RayHook
from operators.ray_operator import RayJobOperator
from operators.settings import as_one_process

PROMOTED, AWAITING, REFUSED = "promoted", "awaiting_approval", "refused"
_MODULE = "qwen_core.jobs.promote"


class ApproveReleaseOperator(ApprovalOperator):
    """Shows a person what the gate measured, and asks whether the challenger becomes champion."""

    APPROVE = "Promote: make it champion / 批准上线"
    REJECT = "Keep the present champion / 保留现有模型"

    template_fields = ()  # the text comes from the gate, not from a template

    def __init__(
        self, *, gate_task_id: str = "release", ray_conn_id: str = RayHook.default_conn_name, **kwargs: Any
    ) -> None:
        """Store the arguments.

        Args:
            gate_task_id: The task whose answer tells decision and figures.
            ray_conn_id: Connection of type `ray`, which knows MLflow's address.
            **kwargs: Those of `ApprovalOperator`, without `subject`, `body` and `params`. With a `response_timeout`, no
                answer counts as no.
        """
        if kwargs.get("response_timeout") is not None:
            kwargs.setdefault("defaults", self.REJECT)
        kwargs["params"] = {"note": _note()}  # in place of the DAG's, which Airflow has put there
        super().__init__(subject="A challenger waits for its approval", **kwargs)
        self.gate_task_id = gate_task_id
        self.ray_conn_id = ray_conn_id

    def execute(self, context: Any) -> Any:
        """Ask, where the gate left the decision to a person."""
        result = gate_result(context, self.gate_task_id)
        if result["decision"] != AWAITING:
            raise _skipped(self, f"nobody needs to be asked: {result['decision']} ({result.get('reason', '')})")
        self.subject = f"{result['name']} version {result['version']}: make it champion? / 是否上线?"
        self.body = approval_text(result, mlflow_pages(RayHook(self.ray_conn_id).mlflow_url(), result))
        tell(context, f"{result['name']} version {result['version']} waits for approval: {result.get('reason', '')}")
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Take the answer; see `ApprovalOperator`."""
        if "error" in event:
            return super().execute_complete(context, event)  # raises
        who = (event.get("responded_by_user") or {}).get("name") or "nobody in time"
        note = (event.get("params_input") or {}).get("note") or ""
        answer = {"is_approved": event["chosen_options"] == [self.APPROVE], "by": who, "note": note}
        result = gate_result(context, self.gate_task_id)
        told = "approved" if answer["is_approved"] else "rejected: it stays challenger, the champion stays what it is"
        self.log.info("%s version %s %s. By %s. %s", result["name"], result["version"], told, who, note)
        # Not ApprovalOperator's, with which a no skips `promote` before that has told the registry.
        super(ApprovalOperator, self).execute_complete(context, event)
        return answer


class PromoteModelOperator(RayJobOperator):
    """A Ray job that gives a version the alias `champion`, once the gate and, where asked for, a person agree.

    A person's no is written to the version in the registry; then the task is skipped.
    """

    template_fields = ("env_vars",)

    def __init__(self, *, gate_task_id: str = "release", approval_task_id: str = "approve", **kwargs: Any) -> None:
        """Store the arguments.

        Args:
            gate_task_id: The task whose answer names the version.
            approval_task_id: The task whose answer tells who approved.
            **kwargs: Those of `RayJobOperator`, without `entrypoint`.
        """
        super().__init__(entrypoint="", **kwargs)
        self.gate_task_id = gate_task_id
        self.approval_task_id = approval_task_id

    def execute(self, context: Any) -> Any:
        """Run the job, where there is something left to do; see `RayJobOperator`."""
        result = gate_result(context, self.gate_task_id)
        if result["decision"] == REFUSED:
            raise _skipped(self, f"the gate refused version {result['version']}: {result.get('reason', '')}")
        if result["decision"] == PROMOTED:
            self.log.info("version %s is champion already: the gate promoted it itself", result["version"])
            return self._announce(context, result)
        self._compose(context, result)
        return self._announce(context, super().execute(context))

    def execute_complete(self, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the job's answer; see `RayJobOperator`."""
        self._compose(context, gate_result(context, self.gate_task_id))
        return self._announce(context, super().execute_complete(context, *args, **kwargs))

    def _answer(self, context: Any) -> dict[str, Any]:
        return context["ti"].xcom_pull(task_ids=self.approval_task_id) or {"is_approved": True}

    def _compose(self, context: Any, result: Mapping[str, Any]) -> None:
        answer = self._answer(context)
        words = {"--name": result["name"], "--version": str(result["version"])}
        flags = [] if answer["is_approved"] else ["--reject"]
        self.entrypoint = _command(flags, {**words, "--by": answer.get("by"), "--why": answer.get("note")})

    def _announce(self, context: Any, result: Any) -> Any:
        gate, answer = gate_result(context, self.gate_task_id), self._answer(context)
        if gate["decision"] == AWAITING and not answer["is_approved"]:
            raise _skipped(self, f"version {gate['version']} was rejected by {answer['by']}. {answer['note']}")
        told = {"name": gate["name"], "version": gate["version"], "reason": gate.get("reason", "")}
        _tell_of_champion(context, self.outlets, {**told, **_plain(result or {})})
        return result


class RollBackModelOperator(RayJobOperator):
    """A Ray job that gives the alias `champion` back to the version that had it before, or to one that is named."""

    template_fields = ("env_vars",)

    def __init__(self, **kwargs: Any) -> None:
        """Store the arguments.

        Args:
            **kwargs: Those of `RayJobOperator`, without `entrypoint`.
        """
        super().__init__(entrypoint="", **kwargs)

    def execute(self, context: Any) -> Any:
        """Run the job by the form's values; see `RayJobOperator`."""
        self._compose(context)
        return self._announce(context, super().execute(context))

    def execute_complete(self, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the job's answer; see `RayJobOperator`."""
        self._compose(context)
        return self._announce(context, super().execute_complete(context, *args, **kwargs))

    def _compose(self, context: Any) -> None:
        params = context["params"]
        words = {"--name": params["model_name"], "--to": params.get("version"), "--why": params.get("reason")}
        self.entrypoint = _command(["--rollback"], {**words, "--by": "DAG rollback"})

    def _announce(self, context: Any, result: Any) -> Any:
        _tell_of_champion(context, self.outlets, {"name": context["params"]["model_name"], **_plain(result or {})})
        return result


def gate_result(context: Any, task_id: str) -> dict[str, Any]:
    """Read what the gate decided.

    Args:
        context: Airflow's.
        task_id: The gate's task.

    Returns:
        `name`, `version`, `decision`, `reason`, and whatever figures the stage told.
    """
    result: dict[str, Any] = context["ti"].xcom_pull(task_ids=task_id) or {}
    return {"decision": PROMOTED, "name": "?", "version": "?", **result}


def approval_text(result: Mapping[str, Any], links: Mapping[str, str] | None = None) -> str:
    """Write what a person needs to decide.

    Args:
        result: Of the stage `release`; `checks` holds the gate's rows.
        links: Addresses by title.

    Returns:
        Markdown: the reason, a table of figures, links.
    """
    lines = [f"**The gate let it pass / 已通过评测门槛: {result.get('reason', '')}**", ""]
    rows = result.get("checks") or []
    if rows:
        champion = result.get("champion") or "none"
        lines += [
            f"| figure | champion ({champion}) | challenger ({result['version']}) | limit | verdict | |",
            "|---|---:|---:|---:|---|---|",
            *(f"| {' | '.join(_cell(row.get(key)) for key in _COLUMNS)} |" for row in rows),
            "",
        ]
    lines += [f"- [{title}]({address})" for title, address in (links or {}).items()]
    lines += ["", "Unanswered, the version stays `challenger`, and the champion goes on serving."]
    return "\n".join(lines)


def mlflow_pages(base: str | None, result: Mapping[str, Any]) -> dict[str, str]:
    """Name the pages of MLflow that help to decide.

    Args:
        base: MLflow's address for browsers; `None` where the connection has none.
        result: Of the stage `release`.

    Returns:
        Addresses by title.
    """
    if not base:
        return {}
    base = base.rstrip("/")
    pages = {"Version and model card / 版本与模型卡": f"#/models/{result['name']}/versions/{result['version']}"}
    if result.get("comparison_path"):
        pages["Comparison of the runs / 运行对比"] = f"#/{str(result['comparison_path']).lstrip('#/')}"
    return {title: f"{base}/{path}" for title, path in pages.items()}


_COLUMNS = ("name", "champion", "challenger", "limit", "verdict", "reason")


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _skipped(task: Any, reason: str) -> AirflowSkipException:
    """Log why a task is skipped: Airflow itself does not show the exception's text."""
    task.log.info("Skipped: %s", reason)
    return AirflowSkipException(reason)


def _tell_of_champion(context: Any, outlets: Sequence[Any], told: dict[str, Any]) -> None:
    """Lay name and version into the asset event; they are its partition too, whoever made the version champion."""
    for outlet in outlets:
        event = context["outlet_events"][outlet]
        event.extra = told
        event.add_partitions(f"{told['name']}-{told.get('version', '?')}")


def _command(flags: list[str], values: Mapping[str, Any]) -> str:
    """Compose the command of the job; values that are not given are left out."""
    words = ["python", "-m", _MODULE, *flags]
    for name, value in values.items():
        words += [f"{name}={value}"] if value else []  # in one word, as a note may begin with a dash
    return as_one_process(words)


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if isinstance(value, str | int | float | bool)}


def _note() -> Param:
    return Param(
        "",
        type=["null", "string"],
        source="task",  # else the operator takes it for one of the DAG's, and shows none
        title="Note / 备注",
        description="Why; MLflow's registry keeps it.",
    )
