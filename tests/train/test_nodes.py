"""A training stage that finds a cluster without its workers: their nodes come, or do not."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.cluster_utils import Cluster as LocalCluster
from ray.util import placement_group_table

from qwen_core.parallel.plan import Cluster
from qwen_core.train.nodes import ONE_MACHINE, await_nodes

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_nodes_that_come_late_are_waited_for_and_those_that_do_not_come_only_so_long(monkeypatch, capsys):
    ray.shutdown()
    cluster = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.delenv(ONE_MACHINE, raising=False)
    try:
        ray.init(address=cluster.address)
        assert await_nodes("sft", {"CPU": 1.0}, 2, 0) == Cluster(0, 0)
        assert capsys.readouterr().out == ""
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(await_nodes, "sft", {"CPU": 1.0}, 2, 60)
            time.sleep(3)
            assert not waiting.done()
            cluster.add_node(num_cpus=2)
            assert waiting.result() == Cluster(2, 0)
        told = capsys.readouterr().out
        assert told.count("[sft] the Ray cluster has 0 of 2 CPUs: waiting up to 60 s for nodes") == 1
        assert await_nodes("sft", {"CPU": 1.0, "GPU": 1.0}, 3, 3) == Cluster(2, 0)
        assert "has 2 of 3 CPUs and 0 of 3 GPUs" in capsys.readouterr().out
        assert {one["state"] for one in placement_group_table().values()} == {"REMOVED"}
        monkeypatch.setenv(ONE_MACHINE, "1")
        assert await_nodes("sft", {"CPU": 1.0}, 3, 600) == Cluster(2, 0)
    finally:
        ray.shutdown()
        cluster.shutdown()
