"""Operators that ask, before anything is run, whether there is anything new: a Ray job that looks at the sources.

PlanRetrainingOperator ─▶ asset `retrain` with the settings ─▶ corpus ─▶ pretrain ─▶ align ─▶ release
PlanDayOperator        ─▶ XCom with the settings ─▶ the stages of `corpus_daily`
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from airflow.sdk import Asset

from operators.ray_operator import RayJobOperator
from operators.settings import SETTINGS, Settings, check_settings, command_line, event_of, form_settings
from qwen_core.errors import NothingToDoError

_MOST_EVENTS = 10_000


class PlanRetrainingOperator(RayJobOperator):
    """A Ray job that compares the sources with the corpus so far and the champion; skipped where nothing is new.

    Its answer, the settings of the pipeline run that is to come, goes out unread with the task's assets.
    """

    template_fields = ("env_vars",)
    words: tuple[str, ...] = ("qwen_core.jobs.retrain",)

    def __init__(self, **kwargs: Any) -> None:
        """Store the arguments.

        Args:
            **kwargs: Those of `RayJobOperator`, without `entrypoint`.
        """
        kwargs.setdefault("skip_on_exit_code", NothingToDoError.exit_code)
        super().__init__(entrypoint="", **kwargs)

    def execute(self, context: Any) -> Any:
        """Check the settings and run the job; see `RayJobOperator`."""
        settings = self.asked(context)
        check_settings(settings, self.log)
        self._compose(settings)
        return self._announce(context, super().execute(context))

    def execute_complete(self, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the job's answer and pass it on; see `RayJobOperator`."""
        self._compose(self.asked(context))
        return self._announce(context, super().execute_complete(context, *args, **kwargs))

    def _compose(self, settings: Settings) -> None:
        self.entrypoint = command_line(self.words, settings)
        self.metadata = {"run_key": settings["run_key"], "stage": "retrain"}

    def asked(self, context: Any) -> Settings:
        """Say what is asked for.

        Args:
            context: Airflow's.

        Returns:
            The settings of the form, or its defaults.
        """
        return form_settings(context)

    def _announce(self, context: Any, result: Any) -> Any:
        """Lay the plan into XCom and the asset events, under the partition of its run key."""
        settings = self.asked(context) | {name: result[name] for name in SETTINGS if result.get(name) is not None}
        context["ti"].xcom_push(key="settings", value=settings)
        for outlet in self.outlets:
            event = context["outlet_events"][outlet]
            event.extra = event_of(settings, result)
            event.add_partitions(settings["run_key"])
        return result


class PlanDayOperator(PlanRetrainingOperator):
    """The same for a corpus that grows by a day at a time and trains nothing: all its days have one run key."""

    words = ("qwen_core.jobs.retrain", "--plan-only")  # no record: this is no retraining of a model

    def __init__(self, *, corpus: Asset, **kwargs: Any) -> None:
        """Store the arguments.

        Args:
            corpus: Asset of the days that are in; an inlet of the task.
            **kwargs: Those of `RayJobOperator`, without `entrypoint`.
        """
        super().__init__(inlets=[corpus], **kwargs)
        self.corpus = corpus

    def asked(self, context: Any) -> Settings:
        """Say what is asked for.

        Args:
            context: Airflow's.

        Returns:
            The form's settings; the day's files are added to what is in under the run key, if anything is.
        """
        settings = form_settings(context)
        run_key = context["params"].get("run_key") or f"daily-{PurePath(settings['recipe']).stem}"
        days = context["inlet_events"][self.corpus].ascending(False).limit(_MOST_EVENTS)
        is_begun = any(event.extra.get("run_key") == run_key for event in days)
        overrides = [*settings["overrides"], f"retrain.corpus_from={run_key if is_begun else 'nothing'}"]
        return settings | {"run_key": run_key, "overrides": overrides}
