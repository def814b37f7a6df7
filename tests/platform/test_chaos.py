"""Everything is killed at a random moment while the DAGs run; they end green, with the bytes of an undisturbed run.

`QWEN_CORE_CHAOS_ROUNDS=5` asks for more rounds, `QWEN_CORE_CHAOS_SEED` repeats one,
`QWEN_CORE_TEST_DATABASES=sqlite,postgresql` chooses where Airflow and MLflow keep their state.
"""

import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from qwen_core.artifacts import Store
from qwen_core.errors import PlatformError
from qwen_core.platform import processes
from qwen_core.stages import STAGES, stages_of
from tests.platform.platforms import TINY, Airflow, best_database, databases, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.endurance, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("QWEN_CORE_CHAOS_ROUNDS", "1"))
SERVICES = ("triggerer", "scheduler", "api-server", "dag-processor", "mlflow")
DAGS = ("corpus", "pretrain")
WORK = [stage.name for dag in DAGS for stage in stages_of(dag)]
USES_RAY_WORKERS = ("ingest", "filter", "dedup", "pack", "pretrain")


class Chaos:
    """Kills what it is told when its time has come, and keeps what it killed."""

    def __init__(self, platform, dice):
        self._platform, self._dice = platform, dice
        self.killed, self._threads, self._is_over = [], [], threading.Event()
        moments = sorted(dice.uniform(3, 75) for _ in SERVICES)
        for service, moment in zip(dice.sample(SERVICES, len(SERVICES)), moments, strict=True):
            self._plan(service, moment, lambda service=service: self._leader(service))
        # On a stage each, or one stage would use up its tries.
        ray_worker_at = dice.choice(USES_RAY_WORKERS)
        driver_at, worker_at = dice.sample([stage for stage in WORK if stage != ray_worker_at], 2)
        self.driver_at = driver_at
        self._plan(f"ray worker in {ray_worker_at}", 0, lambda: self._ray_worker(ray_worker_at))
        self._plan(f"driver of {driver_at}", 0, lambda: self._driver(driver_at))
        self._plan(f"task worker of {worker_at}", 0, lambda: self._task_worker(worker_at))

    def end(self):
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _plan(self, name, seconds, find):
        pause = self._dice.uniform(0, 2)
        thread = threading.Thread(target=self._kill, args=(name, seconds, pause, find), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _kill(self, name, seconds, pause, find):
        """Wait for the moment, then for the victim; a moment after it is seen, kill it or who does its work by then."""
        if self._is_over.wait(seconds):
            return
        while not find():
            if self._is_over.wait(0.4):
                return
        self._is_over.wait(pause)
        for victim in find() or ():
            try:
                told = f"{name}: {victim.pid} {' '.join(victim.cmdline())[:80]}"
                victim.kill()
            except psutil.Error:
                continue
            self.killed.append(name)
            print(f"{time.strftime('%H:%M:%S')} killed {told}", flush=True)
            return
        self._kill(name, 0, 0, find)

    def _leader(self, service):
        found = processes.find(self._platform.home, service)
        return [found] if found else []

    def _of(self, service):
        return _titles(processes.find(self._platform.home, service))

    def _driver(self, stage):
        return [one for one, title in self._of("ray") if title.startswith("python -m qwen_core.jobs " + stage)]

    def _ray_worker(self, stage):
        """A worker that does something, while the stage's driver runs."""
        idle = ("ray::IDLE", "ray::JobSupervisor", "ray::_", "ray::RuntimeEnvAgent", "ray::DashboardAgent")
        return self._while_it_runs(stage, "ray", lambda title: title.startswith("ray::") and not title.startswith(idle))

    def _task_worker(self, stage):
        """Airflow's worker, or the task's process below it, while it waits for the stage's job."""
        return self._while_it_runs(
            stage, "scheduler", lambda title: title.startswith("airflow worker -- ") and "<idle>" not in title
        )

    def _while_it_runs(self, stage, service, is_victim):
        if not self._driver(stage):
            return []
        found = [one for one, title in self._of(service) if is_victim(title)]
        self._dice.shuffle(found)
        return found


def _titles(leader):
    """The processes below one, with their command lines or titles."""
    told = []
    try:
        for process in leader.children(recursive=True) if leader else ():
            try:
                told.append((process, " ".join(process.cmdline()).strip()))
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return told


def _wait_green(platform, dag, run_id, seconds):
    def state():
        try:
            told = platform.airflow.dag_run(dag, run_id)["state"]
        except PlatformError:
            return None  # its server was killed
        return told if told in ("success", "failed") else None

    end = until(state, seconds, f"DAG {dag} ends", every=2)
    if end == "failed":
        for task in platform.airflow.task_instances(dag, run_id):
            for number in range(1, task["try_number"] + 1):
                log = platform.airflow.task_log(dag, run_id, task["task_id"], number)
                print(f"{task['task_id']} {task['state']} try {number}\n{log[-3000:]}")
    assert end == "success"


def _run(platform, run_key, seconds):
    airflow = platform.airflow
    run_id = airflow.trigger("corpus", {"recipe_path": TINY, "run_key": run_key})
    ids = {"corpus": run_id}
    _wait_green(platform, "corpus", run_id, seconds)
    ids["pretrain"] = until(lambda: _started(airflow, run_id), 180, "pretrain follows")[0]
    _wait_green(platform, "pretrain", ids["pretrain"], seconds)
    return ids


def _started(airflow, run_id):
    try:
        return airflow.runs_started_by("corpus", run_id, "pretrain")
    except PlatformError:
        return None


def _made(platform, run_key):
    """What a run made: fingerprints, counts, and a hash of each file."""
    told = {}
    for stage, manifest in Store(platform.store_root).of_run(run_key).items():
        hashes = {name: _hash(Path(manifest.data_uri) / name) for name in manifest.files}
        told[stage] = (manifest.fingerprint, manifest.rows, manifest.tokens, manifest.drops, hashes)
    return told


def _hash(path):
    """Hash a file without the names and durations in it: a part's name is random, and its content counts instead."""
    if path.name == "parts.jsonl":
        parts = [json.loads(line) for line in path.read_text().splitlines()]
        return [part | {"uri": _hash(Path(part["uri"]))} for part in parts]
    if path.name == "history.jsonl":
        points = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: value for key, value in point.items() if "second" not in key} for point in points]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _jobs(platform, run_key):
    """How Ray's jobs of each stage of a run ended; REUSED: it found the work done, and told the result."""
    airflow, told = Airflow(platform), {}
    for job in airflow.jobs(run_key=run_key):
        is_reused = job["status"] == "SUCCEEDED" and "already done" in airflow.job_log(job["submission_id"])
        told.setdefault(job["metadata"]["stage"], Counter())["REUSED" if is_reused else job["status"]] += 1
    return told


@pytest.mark.parametrize("database", databases(best_database()), indirect=True)
def test_dags_end_green_with_the_same_bytes_whatever_is_killed(database, platforms):
    platform = platforms.get(database)
    Airflow(platform).ask("PATCH", "/dags/align", json={"is_paused": True})  # the chain of DAGs ends there
    began = time.monotonic()
    _run(platform, "undisturbed", 600)
    print(f"undisturbed: {time.monotonic() - began:.0f} s")
    expected = _made(platform, "undisturbed")
    assert list(expected) == WORK
    first = int(os.environ.get("QWEN_CORE_CHAOS_SEED", time.time_ns() % 10_000))
    for seed in range(first, first + ROUNDS):
        for stage in STAGES:  # the round does the work again
            shutil.rmtree(Path(platform.store_root) / stage, ignore_errors=True)
        _one_round(platform, seed, expected)


def _one_round(platform, seed, expected):
    print(f"QWEN_CORE_CHAOS_SEED={seed}", flush=True)
    began, run_key = time.monotonic(), f"chaos-{seed}"
    before = {service.name: service.restarts for service in platform.status()}
    chaos = Chaos(platform, random.Random(seed))
    try:
        _run(platform, run_key, 900)
    finally:
        chaos.end()
    print(f"seed {seed}: {time.monotonic() - began:.0f} s, killed {chaos.killed}", flush=True)
    assert set(SERVICES) <= set(chaos.killed) and len(chaos.killed) >= len(SERVICES) + 2, chaos.killed
    platform.up(progress=print)  # what was killed last may still be starting
    for service in platform.status():
        if service.name in chaos.killed:
            assert service.restarts > before[service.name] and "SIGKILL" in service.last_exit
    assert _made(platform, run_key) == expected
    jobs = _jobs(platform, run_key)
    print({stage: dict(states) for stage, states in jobs.items()})
    # A job that ends before Airflow misses its worker is followed by one that reuses. A scheduler takes workers along.
    reused = sum(states.pop("REUSED", 0) for states in jobs.values())
    assert reused <= sum(name.startswith(("task worker", "scheduler")) for name in chaos.killed), jobs
    for stage in WORK:
        assert jobs[stage]["SUCCEEDED"] == 1, (stage, jobs)
        assert jobs[stage].total() == 1 or stage == chaos.driver_at, (stage, jobs)
