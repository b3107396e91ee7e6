"""The pool on a cluster whose nodes come and go: a real Ray, with GPUs that are only declared."""

import logging
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from support.pool_runs import Run
from support.pool_scorers import Task
from support.small_cluster import LEAKS, SmallCluster, small_cluster

import raygenome
from raygenome.cluster.connect import joined
from raygenome.errors import UsageError
from raygenome.pool import probe_worker

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(120), LEAKS]


@pytest.fixture(scope="module")
def cluster_here() -> Iterator[SmallCluster]:
    """Start one cluster for the tests of this file, and join it."""
    with small_cluster() as cluster, joined(cluster.address):
        yield cluster


@pytest.fixture
def cluster(cluster_here: SmallCluster) -> Iterator[SmallCluster]:
    """Yield a cluster that has only a head."""
    yield cluster_here
    cluster_here.clear()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def slow(count: int, rows: int = 4) -> list[Task]:
    """Return shards that take 0.1 s per row."""
    return [Task(index, "slow", rows) for index in range(count)]


def test_a_lost_node_is_no_shards_fault(cluster: SmallCluster, run: Run) -> None:
    """Each shard has only one attempt; those on the lost node have not used it."""
    cluster.add()
    cluster.add()
    run.after = lambda done: cluster.kill() if done == 4 else None
    run(slow(12), worker_gpus=1, max_attempts=1)
    assert run.failures == []
    assert run.done == run.parts() == list(range(12))
    assert sum(run.attempts(index) for index in range(12)) <= 12 + 2


def test_a_run_waits_for_nodes_at_first_and_when_all_are_lost(
    cluster: SmallCluster,
    run: Run,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def reported(count: int) -> bool:
        return caplog.text.count("no worker yet: each waits for a GPU") >= count

    def add_when_waited(count: int) -> None:
        while not reported(count):
            time.sleep(0.05)
        cluster.add()

    def lose_all(done: int) -> None:
        if done == 3:
            caplog.clear()
            cluster.clear()
            threads.append(threading.Thread(target=add_when_waited, args=(2,)))
            threads[-1].start()

    threads = [threading.Thread(target=add_when_waited, args=(1,))]
    threads[0].start()
    run.after = lose_all
    with caplog.at_level(logging.WARNING):
        run(slow(8), worker_gpus=1, max_attempts=1, notice_s=1.0)
    for thread in threads:
        thread.join()
    assert run.failures == []
    assert run.done == run.parts() == list(range(8))


def test_half_a_gpu_each_puts_two_workers_on_one(cluster: SmallCluster, run: Run) -> None:
    cluster.add()
    run(slow(6), worker_gpus=0.5, device="cuda")
    assert run.done == list(range(6))
    assert {receipt["devices"] for receipt in run.receipts} == {"0"}
    assert len({receipt["pid"] for receipt in run.receipts}) == 2


def test_a_worker_is_probed_where_workers_run(
    cluster: SmallCluster, caplog: pytest.LogCaptureFixture
) -> None:
    threading.Timer(1.0, cluster.add).start()
    facts = probe_worker("cpu", worker_gpus=1, notice_s=0.3)
    assert facts == ("cpu", torch.__version__, raygenome.__version__)
    assert "no worker yet: each waits for a GPU, and Ray has 0 free" in caplog.text


def test_a_worker_that_cannot_run_raygenome_is_one_line(cluster: SmallCluster) -> None:
    """The GPU is only declared, so that torch finds none there."""
    cluster.add()
    with pytest.raises(UsageError, match="a worker of the Ray cluster cannot run raygenome") as hit:
        probe_worker("cuda")
    assert "\n" not in str(hit.value)


def metrics() -> str:
    """Return the metrics that all nodes of the cluster export to Prometheus now."""
    pages = []
    for node in ray.nodes():
        if node["Alive"]:
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with urllib.request.urlopen(address, timeout=5) as answer:
                pages.append(answer.read().decode())
    return "\n".join(line for page in pages for line in page.splitlines() if line[:1] != "#")


def value(page: str, name: str, model: str) -> float:
    """Return the sum of a metric on `page` over all workers."""
    own = [line for line in page.splitlines() if line.startswith(f"ray_raygenome_{name}{{")]
    return sum(float(line.split()[-1]) for line in own if f'model="{model}"' in line)


def test_metrics_are_exported_under_their_stable_names(cluster: SmallCluster, run: Run) -> None:
    cluster.add()
    cluster.add()
    seen: list[str] = []

    def look(done: int) -> None:
        deadline = time.monotonic() + 30
        while done == 6 and not seen:
            page = metrics()
            if value(page, "variants_scored_total", "m") >= 5 and value(page, "workers", "m") >= 1:
                seen.append(page)
            assert time.monotonic() < deadline, page
            time.sleep(0.2)

    run.after = look
    acts = ["error-once", "error", *["slow"] * 6]
    run(
        [Task(index, act, rows=2) for index, act in enumerate(acts)],
        worker_gpus=1,
        tags={"model": "m"},
    )
    (page,) = seen
    assert [failure.shard.index for failure in run.failures] == [1]
    assert value(page, "shard_seconds_count", "m") >= 3
    assert 0 < value(page, "busy_share", "m") <= 2, "of two workers"
    assert value(page, "workers", "m") <= 2
    deadline = time.monotonic() + 30
    while value(page := metrics(), "shards_failed_total", "m") < 1:
        assert time.monotonic() < deadline, page
        time.sleep(0.2)
    assert value(page, "shard_retries_total", "m") == 1 + 2
