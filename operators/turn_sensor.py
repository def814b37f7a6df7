"""`TurnSensor`: lets DAG runs that go on from each other's result pass one at a time, in the order of their dates.

`max_active_runs` alone does not: Airflow counts the runs of a backfill apart, and the DAGs that an asset starts not at
all. A run that failed does not hold up the next one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseSensorOperator

_ACTIVE = ["queued", "running"]
_WAITING_FOR_A_PERSON = ["awaiting_input"]
_HANDOVER_SECONDS = 10.0
"""Between the end of a DAG run and the begin of the one that its asset starts there is none for some seconds."""


class TurnSensor(BaseSensorOperator):
    """Waits until no earlier run of its own DAG is under way, and none of the DAGs that follow it."""

    def __init__(
        self, *, chain: Sequence[str] = (), handover_seconds: float = _HANDOVER_SECONDS, **kwargs: Any
    ) -> None:
        """Store the arguments.

        Args:
            chain: DAGs that this one starts through assets. A run that waits for nothing but a person's approval does
                not count as under way.
            handover_seconds: The chain must be found at rest twice, so long apart.
            **kwargs: Airflow's own.
        """
        kwargs.setdefault("mode", "reschedule")
        kwargs.setdefault("poke_interval", 30.0)
        kwargs.setdefault("timeout", 60 * 60 * 24 * 365)
        super().__init__(**kwargs)
        self.chain = tuple(chain)
        self.handover_seconds = handover_seconds

    def poke(self, context: Any) -> bool:
        """Look whether it is this run's turn.

        Args:
            context: Airflow's.

        Returns:
            Whether it is.
        """
        instance = context["ti"]
        for state in _ACTIVE:
            earlier = instance.get_previous_dagrun(state=state)
            if earlier is not None:
                self.log.info("run %s of an earlier date is %s: it goes first", earlier.run_id, state)
                return False
        if not self.chain:
            return True
        if not self._is_at_rest(instance):
            return False
        time.sleep(self.handover_seconds)
        return self._is_at_rest(instance)

    def _is_at_rest(self, instance: Any) -> bool:
        """Look whether any DAG of the chain works."""
        for dag_id in self.chain:
            active = instance.get_dr_count(dag_id=dag_id, states=_ACTIVE)
            if active and active > instance.get_ti_count(dag_id=dag_id, states=_WAITING_FOR_A_PERSON):
                self.log.info("DAG %s still works on the last retraining: its model is waited for", dag_id)
                return False
        return True
