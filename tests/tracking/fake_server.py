"""MLflow, as far as the metric log sees it."""

import threading
from types import SimpleNamespace

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException, RestException


class FakeServer:
    """Keeps points as MLflow does: the same point twice is one. Can be away, and can refuse a name for good."""

    tracking_uri = "http://fake"
    run_id = key = "run1"

    def __init__(self):
        self.points: dict[tuple, None] = {}
        self.tags: dict[str, str] = {}
        self.requests, self.is_away, self.refused = 0, False, set()
        self.asked = threading.Event()

    @property
    def client(self):
        return self

    def resolve(self):
        return self.run_id

    def _answer(self):
        self.requests += 1
        self.asked.set()
        if self.is_away:
            raise MlflowException("connection refused")

    def log_batch(self, run_id, metrics=(), tags=()):
        self._answer()
        if any(metric.key in self.refused for metric in metrics):
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"})
        assert len(metrics) <= 1000
        self.points |= {(m.key, m.step, m.value, m.timestamp): None for m in metrics}
        self.tags |= {tag.key: tag.value for tag in tags}

    def get_run(self, run_id):
        self._answer()
        latest: dict[str, Metric] = {}
        for key, step, value, ms in self.points:
            if key not in latest or (step, ms) > (latest[key].step, latest[key].timestamp):
                latest[key] = Metric(key, value, ms, step)
        return SimpleNamespace(data=SimpleNamespace(tags=self.tags, _metric_objs=list(latest.values())))

    def get_metric_history(self, run_id, key):
        return [Metric(name, value, ms, step) for name, step, value, ms in self.points if name == key]

    def steps(self, key="train/loss"):
        return [step for step, _ in self.curve(key)]

    def curve(self, key):
        return [(step, value) for name, step, value, _ in self.points if name == key]
