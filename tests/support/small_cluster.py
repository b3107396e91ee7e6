"""A Ray cluster of several nodes on this machine, protected by a token, whose nodes can be killed.

GPUs are only declared: the scorers on them use the CPU.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from raygenome.cluster.local_ray import forget_auth, import_paths

MEMORY = 80 * 2**20

#: Ray notices a killed node in about a second, and exports metrics as quickly.
QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
    "metrics_report_interval_ms": 500,
}

#: Ray tries ports, and does not close the socket if a port is in use.
LEAKS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class SmallCluster:
    """A head without room for workers, and nodes that are added and killed."""

    def __init__(self, **config: Any) -> None:
        head = {"num_cpus": 0, "num_gpus": 0, "object_store_memory": MEMORY}
        self._cluster = Cluster(
            initialize_head=True,
            shutdown_at_exit=False,
            head_node_args={**head, "_system_config": {**QUICK, **config}},
        )
        self.address: str = self._cluster.address
        self.nodes: list[Any] = []

    def add(self, gpus: int = 1, cpus: int = 0) -> None:
        self.nodes.append(
            self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=MEMORY)
        )

    def kill(self, which: int = 0) -> None:
        """Kill a node with SIGKILL; `which` counts the living nodes, oldest first."""
        self._cluster.remove_node(self.nodes.pop(which), allow_graceful=False)

    def lose(self, program: str) -> None:
        """Kill gcs_server, or the raylet of the drivers' node, with SIGKILL."""
        for each in self._cluster.head_node.all_processes[program]:
            each.process.kill()

    def clear(self) -> None:
        while self.nodes:
            self.kill()

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def small_cluster(**config: Any) -> Iterator[SmallCluster]:
    """Run a cluster within the block, with its token in the environment."""
    paths = os.pathsep.join(import_paths())
    with environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), PYTHONPATH=paths):
        cluster = SmallCluster(**config)
        try:
            yield cluster
        finally:
            cluster.shutdown()


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of the environment within the block, for Ray too."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    forget_auth()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        forget_auth()
