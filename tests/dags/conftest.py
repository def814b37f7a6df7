"""A task's context without an Airflow, for operators that are called as functions."""

import datetime
from types import SimpleNamespace

import pytest


class Outlet(SimpleNamespace):
    def add_partitions(self, key):
        self.partition = key


class Outlets(dict):
    def __missing__(self, asset):
        self[asset.name] = self.get(asset.name) or Outlet(extra={})
        return self[asset.name]

    def __getitem__(self, asset):
        return (
            super().__getitem__(asset if isinstance(asset, str) else asset.name)
            if asset in self
            else self.__missing__(asset)
        )


class Instance(SimpleNamespace):
    def xcom_pull(self, task_ids, key="return_value"):
        return self.values.get((task_ids, key))

    def xcom_push(self, key, value):
        self.pushed[key] = value


@pytest.fixture
def make_context():
    def make(params=None, events=None, values=None, run_type="manual", **run):
        told = {"run_id": "manual__2026-02-01T10:00:00+00:00_x", "run_type": run_type, "logical_date": None}
        told |= {"data_interval_start": None, "run_after": datetime.datetime(2026, 2, 1, 10, tzinfo=datetime.UTC)}
        return {
            "params": {"recipe": "demo", **(params or {})},
            "triggering_asset_events": events or {},
            "ti": Instance(values=values or {}, pushed={}, map_index=-1),
            "dag_run": SimpleNamespace(**{**told, **run}),
            "outlet_events": Outlets(),
            "inlet_events": {},
        }

    return make
