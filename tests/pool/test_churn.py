"""A scoring run on a cluster whose nodes are killed and replaced every few seconds."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from chaos.slow_scorer import SlowScorer, attempts
from support.small_cluster import LEAKS, SmallCluster, small_cluster
from support.small_run import contents, make_inputs, parts

import raygenome
from raygenome.scoring import dispatch

NODES = 3
PAUSE_S = 3.0
KILLS = 5


class Churn(threading.Thread):
    """Kills a random node and adds a new one, KILLS times or until `stop`."""

    def __init__(self, cluster: SmallCluster, seed: int) -> None:
        super().__init__()
        self._cluster = cluster
        self._chance = np.random.default_rng(seed)
        self._over = threading.Event()
        self.killed = 0

    def run(self) -> None:
        while self.killed < KILLS:
            if self._over.wait(self._chance.uniform(0.5, 1.5) * PAUSE_S):
                return
            self._cluster.kill(int(self._chance.integers(len(self._cluster.nodes))))
            self.killed += 1
            self._cluster.add()

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.campaign
@LEAKS
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nodes_that_come_and_go_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {**make_inputs(tmp_path), "shard_size": 5}
    whole = raygenome.score(**inputs, out=tmp_path / "whole", workers=0)
    monkeypatch.setattr(dispatch, "Scorer", SlowScorer)
    seed = int(time.time())
    print(f"seed {seed}")
    with small_cluster() as cluster:
        for _ in range(NODES):
            cluster.add()
        churn = Churn(cluster, seed)
        churn.start()
        try:
            run = raygenome.score(
                **inputs,
                out=tmp_path / "run",
                workers=NODES,
                device="cpu",
                worker_gpus=1,
                address=cluster.address,
            )
        finally:
            churn.stop()
    assert churn.killed == KILLS, seed
    assert contents(run.path) == contents(whole.path), seed
    assert run.counts == whole.counts
    assert len(parts(run.path)) == whole.counts["scored"], "0 lost, 0 twice"
    shards = len(whole.document["parts"])
    assert shards > 100
    started = attempts(run.path)
    assert sorted(started) == list(range(shards))
    redone = sum(len(tries) - 1 for tries in started.values())
    assert redone <= churn.killed, "the shard of the worker on a node that was killed"
